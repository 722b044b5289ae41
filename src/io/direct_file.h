#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>

#include "io/descriptor.h"

namespace mergepipe {

/// Whole pages less than this go through the page cache: a transfer has its price, too.
inline constexpr size_t kMinDirect = 64 * 1024;

/// A second descriptor of a file, for transfers past the page cache. Address, offset and size are
/// multiples of kDirectAlignment. Thread-safe.
class DirectFile {
 public:
  /// Of the file that is open as `file`. Null where the filesystem has no direct transfers, or if
  /// another file has taken the name.
  static std::unique_ptr<DirectFile> Open(const std::string& path, const struct stat& file,
                                          int flags);

  DirectFile(Descriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  /// False once the filesystem has refused a transfer.
  bool usable() const { return usable_.load(std::memory_order_relaxed); }
  /// How many bytes were moved: less than all where the file ends, or where the filesystem refuses;
  /// the caller then goes on by other means.
  Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out);
  Result<size_t> WriteAt(uint64_t offset, std::span<const std::byte> bytes);
  Status Close() { return fd_.Close(path_); }

 private:
  template <typename Transfer>
  Result<size_t> Move(size_t size, const char* verb, Transfer&& transfer);

  Descriptor fd_;
  std::string path_;
  std::atomic<bool> usable_{true};
};

/// DirectFile::Open where `mode` and, for kAuto, the disk want it.
std::unique_ptr<DirectFile> OpenDirect(const std::string& path, const OpenedFile& file, int flags,
                                       TransferMode mode, const DiskTraits& disk);

}  // namespace mergepipe
