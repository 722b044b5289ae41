#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <span>

namespace mergepipe {

/// Memory for units, that is used again: its pages are not given back and zeroed anew for every
/// unit. What is in use must stay under the limit; then the pool's pages do too. Thread-safe.
class BufferPool {
 public:
  /// Takes address space now, and pages as they are needed. Throws std::bad_alloc.
  explicit BufferPool(size_t limit);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  /// At least `size` bytes, 4 KiB-aligned; empty for 0. Throws std::bad_alloc.
  std::span<std::byte> Take(size_t size);
  /// What Take gave; or nothing.
  void Give(std::span<std::byte> buffer);

  /// What Take(size) takes of the limit.
  static size_t SizeOf(size_t size);

 private:
  std::span<std::byte> TakeApart(size_t size);

  size_t size_;
  std::byte* begin_;
  std::mutex mutex_;
  size_t apart_ = 0;                ///< in use beside the pool, while no hole is large enough
  std::map<size_t, size_t> holes_;  ///< offset to size; no two touch
};

}  // namespace mergepipe
