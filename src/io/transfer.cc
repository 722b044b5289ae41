#include "io/transfer.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "mergepipe/io/file.h"

namespace mergepipe {
namespace {

// One call transfers at most 0x7ffff000 bytes.
constexpr size_t kMaxTransfer = size_t{1} << 30;

size_t ReadWithoutWaiting(int fd, uint64_t offset, std::span<std::byte> out) {
  const iovec target{out.data(), std::min(out.size(), kMaxTransfer)};
  const ssize_t got = ::preadv2(fd, &target, 1, static_cast<off_t>(offset), RWF_NOWAIT);
  return got < 0 ? 0 : static_cast<size_t>(got);
}

}  // namespace

Status ReadExactly(int fd, const std::string& path, uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t got =
        ::pread(fd, out.data(), std::min(out.size(), kMaxTransfer), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return tl::unexpected(SystemError(errno, path, "read"));
    if (got == 0) {
      return Fail(
          ErrorKind::kBadInput, path,
          "ends at byte " + std::to_string(offset) + ", before the data that it should hold",
          "the file is truncated or was changed; fetch it again");
    }
    offset += static_cast<uint64_t>(got);
    out = out.subspan(static_cast<size_t>(got));
  }
  return {};
}

Status WriteExactly(int fd, const std::string& path, uint64_t offset,
                    std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd, bytes.data(), std::min(bytes.size(), kMaxTransfer),
                                 static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    // Nothing written, and no reason given: no file does that, and none may hold us here for ever.
    if (put <= 0) return tl::unexpected(SystemError(put < 0 ? errno : EIO, path, "write"));
    offset += static_cast<uint64_t>(put);
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return {};
}

size_t ReadCached(int fd, uint64_t offset, std::span<std::byte> out) {
  // Kernels since 5.9 answer a miss by reading all of the request ahead. One page first, so that
  // what is not cached at all stays so.
  const size_t first = std::min<size_t>(out.size(), kDirectAlignment - offset % kDirectAlignment);
  const size_t got = ReadWithoutWaiting(fd, offset, out.first(first));
  if (got < first || first == out.size()) return got;
  return first + ReadWithoutWaiting(fd, offset + first, out.subspan(first));
}

Result<uint64_t> CopyByKernel(int source, uint64_t from, int target, uint64_t to, uint64_t length,
                              const std::string& target_path) {
  uint64_t copied = 0;
  while (copied < length) {
    auto in = static_cast<off64_t>(from + copied);
    auto out = static_cast<off64_t>(to + copied);
    const size_t piece = std::min<uint64_t>(length - copied, kMaxTransfer);
    const ssize_t got = ::copy_file_range(source, &in, target, &out, piece, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
      return tl::unexpected(SystemError(errno, target_path, "write"));
    }
    // Files on two filesystems, or one that cannot; the end of the source; or an error whose file
    // a read or a write will tell.
    if (got <= 0) break;
    copied += static_cast<uint64_t>(got);
  }
  return copied;
}

bool CloneByKernel(int source, uint64_t from, int target, uint64_t to, uint64_t length) {
  const file_clone_range range{
      .src_fd = source, .src_offset = from, .src_length = length, .dest_offset = to};
  return ::ioctl(target, FICLONERANGE, &range) == 0;
}

}  // namespace mergepipe
