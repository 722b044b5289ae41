#include "io/descriptor.h"

namespace mergepipe {

Status Descriptor::Close(const std::string& path) {
  const int fd = std::exchange(fd_, -1);
  if (fd >= 0 && ::close(fd) != 0 && errno != EINTR) {
    return tl::unexpected(SystemError(errno, path, "close"));
  }
  return {};
}

int OpenRetrying(const std::string& path, int flags, mode_t mode) {
  return RetryInterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
}

int SyncRetrying(int fd) {
  return RetryInterrupted([&] { return ::fsync(fd); });
}

int WriteLockRetrying(int fd, int command, struct flock& lock) {
  lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return RetryInterrupted([&] { return ::fcntl(fd, command, &lock); });
}

namespace {

Status CheckRegular(const std::string& path, const struct stat& info) {
  if (S_ISREG(info.st_mode)) return {};
  return Fail(ErrorKind::kBadInput, path,
              S_ISDIR(info.st_mode) ? "is a directory, not a file" : "is not a regular file",
              "give a checkpoint directory or a weight file");
}

}  // namespace

Result<OpenedFile> OpenRegular(const std::string& path, int flags) {
  // Asked before it is opened: to open a device can do something.
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0) MERGEPIPE_RETURN_IF_ERROR(CheckRegular(path, info));
  // O_NONBLOCK: opening a pipe, if it has just become one, must not wait for its writer.
  OpenedFile file{Descriptor(OpenRetrying(path, flags | O_NONBLOCK)), {}};
  if (file.fd.get() < 0) return tl::unexpected(OpenError(errno, path));
  if (::fstat(file.fd.get(), &file.info) != 0) {
    return tl::unexpected(SystemError(errno, path, "look up"));
  }
  MERGEPIPE_RETURN_IF_ERROR(CheckRegular(path, file.info));
  return file;
}

Error NotThere(const std::string& path) {
  return Error(ErrorKind::kBadInput, path, "no such file or directory", "check the path");
}

Error OpenError(int error, const std::string& path) {
  if (error == ENOENT || error == ENOTDIR || error == ELOOP) return NotThere(path);
  if (error == ENXIO || error == EISDIR) {
    return Error(ErrorKind::kBadInput, path, "is not a regular file", "check the path");
  }
  return SystemError(error, path, "open");
}

}  // namespace mergepipe
