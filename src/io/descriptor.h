#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "mergepipe/io/file.h"

namespace mergepipe {

/// Owns a file descriptor; -1 is none.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  int get() const { return fd_; }
  /// Closes it and reports what only shows then.
  Status Close(const std::string& path);

 private:
  int fd_;
};

/// A system call, again as long as a signal interrupts it; errno tells why it is below 0.
template <typename Call>
auto RetryInterrupted(Call&& call) {
  for (;;) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

/// open(2) with O_CLOEXEC, again after a signal; errno tells why it is -1.
int OpenRetrying(const std::string& path, int flags, mode_t mode = 0);

/// fsync(2), again after a signal: no error of the disk is consumed by that one. 0, or -1 with
/// errno; any other failure is final.
int SyncRetrying(int fd);

/// fcntl(2) with F_OFD_SETLK or F_OFD_GETLK, for a write lock on the whole file: locks of an open
/// file description are released when the process dies, and work over NFS. `lock` is what it gave.
int WriteLockRetrying(int fd, int command, struct flock& lock);

/// A regular file as it was when opened.
struct OpenedFile {
  Descriptor fd;
  struct stat info;
};
/// Opens a file that must be a regular one; never waits for the other end of a pipe.
Result<OpenedFile> OpenRegular(const std::string& path, int flags);

Error NotThere(const std::string& path);
/// What a failed open says of `path`.
Error OpenError(int error, const std::string& path);

}  // namespace mergepipe
