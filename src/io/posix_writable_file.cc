#include "io/posix_writable_file.h"

#include <cerrno>

#include "io/descriptor.h"
#include "io/transfer.h"
#include "mergepipe/base/checked.h"

namespace mergepipe {
namespace {

class PosixWritableFile final : public WritableFile {
 public:
  PosixWritableFile(Descriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  Status WriteAt(uint64_t offset, std::span<const std::byte> bytes) override {
    return WriteExactly(fd_.get(), path_, offset, bytes);
  }
  Status Sync() override {
    if (SyncRetrying(fd_.get()) != 0) return tl::unexpected(SystemError(errno, path_, "sync"));
    return {};
  }
  Status Close() override { return fd_.Close(path_); }
  const std::string& path() const override { return path_; }

 private:
  Descriptor fd_;
  std::string path_;
};

Status Allocate(int fd, const std::string& path, uint64_t size) {
  const auto length = Narrow<off_t>(size);
  if (!length) return Fail(ErrorKind::kBadInput, path, "would be larger than a file can be");
  if (*length == 0) return {};
  if (RetryInterrupted([&] { return ::fallocate(fd, 0, 0, *length); }) == 0) return {};
  if (errno == EOPNOTSUPP || errno == ENOSYS) {
    if (RetryInterrupted([&] { return ::ftruncate(fd, *length); }) == 0) return {};
  }
  return tl::unexpected(SystemError(errno, path, "allocate " + std::to_string(size) + " bytes"));
}

}  // namespace

Result<std::unique_ptr<WritableFile>> CreatePosix(const std::string& path, uint64_t size) {
  Descriptor fd(OpenRetrying(path, O_RDWR | O_CREAT | O_EXCL, 0666));
  if (fd.get() < 0) return tl::unexpected(SystemError(errno, path, "create"));
  if (Status status = Allocate(fd.get(), path, size); !status) {
    ::unlink(path.c_str());
    return tl::unexpected(status.error());
  }
  return std::make_unique<PosixWritableFile>(std::move(fd), path);
}

Result<std::unique_ptr<WritableFile>> OpenPosixForWriting(const std::string& path) {
  MERGEPIPE_ASSIGN_OR_RETURN(OpenedFile file, OpenRegular(path, O_WRONLY));
  return std::make_unique<PosixWritableFile>(std::move(file.fd), path);
}

}  // namespace mergepipe
