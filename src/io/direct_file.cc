#include "io/direct_file.h"

#include <algorithm>
#include <cerrno>

namespace mergepipe {
namespace {

// One call transfers at most 0x7ffff000 bytes.
constexpr size_t kMaxTransfer = size_t{1} << 30;

}  // namespace

std::unique_ptr<DirectFile> DirectFile::Open(const std::string& path, const struct stat& file,
                                             int flags) {
  Descriptor fd(OpenRetrying(path, flags | O_DIRECT | O_NONBLOCK));
  struct stat info {};
  if (fd.get() < 0 || ::fstat(fd.get(), &info) != 0) return nullptr;
  if (info.st_ino != file.st_ino || info.st_dev != file.st_dev) return nullptr;
  return std::make_unique<DirectFile>(std::move(fd), path);
}

template <typename Transfer>
Result<size_t> DirectFile::Move(size_t size, const char* verb, Transfer&& transfer) {
  size_t moved = 0;
  while (usable() && moved < size) {
    const ssize_t count = transfer(moved, std::min(size - moved, kMaxTransfer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EINVAL && errno != EOPNOTSUPP) {
      return tl::unexpected(SystemError(errno, path_, verb));
    }
    if (count < 0) usable_.store(false, std::memory_order_relaxed);
    if (count <= 0) break;
    moved += static_cast<size_t>(count);
    if (moved % kDirectAlignment != 0) break;  // the end of the file
  }
  return moved;
}

Result<size_t> DirectFile::ReadAt(uint64_t offset, std::span<std::byte> out) {
  return Move(out.size(), "read", [&](size_t moved, size_t size) {
    return ::pread(fd_.get(), out.data() + moved, size, static_cast<off_t>(offset + moved));
  });
}

Result<size_t> DirectFile::WriteAt(uint64_t offset, std::span<const std::byte> bytes) {
  return Move(bytes.size(), "write", [&](size_t moved, size_t size) {
    return ::pwrite(fd_.get(), bytes.data() + moved, size, static_cast<off_t>(offset + moved));
  });
}

std::unique_ptr<DirectFile> OpenDirect(const std::string& path, const OpenedFile& file, int flags,
                                       TransferMode mode, const DiskTraits& disk) {
  const bool wanted = mode == TransferMode::kDirect || (mode == TransferMode::kAuto && disk.direct);
  return wanted ? DirectFile::Open(path, file.info, flags) : nullptr;
}

}  // namespace mergepipe
