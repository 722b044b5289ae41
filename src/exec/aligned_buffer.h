#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace mergepipe {

/// Uninitialised bytes, 4 KiB-aligned, that grow but never shrink: reused from chunk to chunk.
class AlignedBuffer {
 public:
  /// Makes size() at least `size`; the content is lost. Throws std::bad_alloc.
  void Reserve(size_t size);
  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  std::span<std::byte> First(size_t size) { return {data_.get(), size}; }
  void Free();

 private:
  struct Deleter {
    void operator()(std::byte* bytes) const;
  };
  std::unique_ptr<std::byte, Deleter> data_;
  size_t size_ = 0;
};

}  // namespace mergepipe
