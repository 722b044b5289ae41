#include "io/posix_calls.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <map>
#include <mutex>

namespace mergepipe::test {
namespace {

std::map<std::string, CallPlan>& Plans() {
  static std::map<std::string, CallPlan> plans;
  return plans;
}

std::mutex& Mutex() {
  static std::mutex mutex;
  return mutex;
}

// How many of `size` bytes a call may transfer; nothing if it fails.
bool Begins(const char* function, size_t& size) {
  const std::lock_guard lock(Mutex());
  const auto found = Plans().find(function);
  if (found == Plans().end()) return true;
  CallPlan& plan = found->second;
  ++plan.calls;
  size = std::min(size, plan.most);
  if (plan.failures == 0) return true;
  --plan.failures;
  errno = plan.error;
  return false;
}

bool Begins(const char* function) {
  size_t none = 0;
  return Begins(function, none);
}

}  // namespace

CallPlan& PlanOf(const std::string& function) { return Plans()[function]; }
void ResetPlans() { Plans().clear(); }

}  // namespace mergepipe::test

using mergepipe::test::Begins;

// The C library's own, by number.
extern "C" {

ssize_t pread(int fd, void* data, size_t size, off_t offset) {
  return Begins("pread", size) ? syscall(SYS_pread64, fd, data, size, offset) : -1;
}

ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  return Begins("pwrite", size) ? syscall(SYS_pwrite64, fd, data, size, offset) : -1;
}

ssize_t copy_file_range(int in, off64_t* from, int out, off64_t* to, size_t size, unsigned flags) {
  return Begins("copy_file_range", size)
             ? syscall(SYS_copy_file_range, in, from, out, to, size, flags)
             : -1;
}

// A look into the page cache, which may find a part of what is asked.
ssize_t preadv2(int fd, const struct iovec* vectors, int count, off_t offset, int flags) {
  iovec first = vectors[0];
  if (!Begins("pread", first.iov_len)) return -1;
  return count == 1 ? syscall(SYS_preadv2, fd, &first, 1, offset, 0, flags) : -1;
}

int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
  }
  return Begins("open") ? static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode)) : -1;
}

int fsync(int fd) { return Begins("fsync") ? static_cast<int>(syscall(SYS_fsync, fd)) : -1; }

int fallocate(int fd, int mode, off_t offset, off_t size) {
  return Begins("fallocate") ? static_cast<int>(syscall(SYS_fallocate, fd, mode, offset, size))
                             : -1;
}

int ftruncate(int fd, off_t size) noexcept {
  return Begins("ftruncate") ? static_cast<int>(syscall(SYS_ftruncate, fd, size)) : -1;
}

int stat(const char* path, struct stat* info) noexcept {
  return Begins("stat") ? fstatat(AT_FDCWD, path, info, 0) : -1;
}

// Linux has closed it, whatever it says.
int close(int fd) {
  const bool told_well = Begins("close");
  const auto failed = static_cast<int>(syscall(SYS_close, fd));
  return told_well ? failed : -1;
}
}
