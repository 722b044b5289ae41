#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>

namespace mergepipe {

struct AlignedDelete {
  size_t alignment = 0;
  void operator()(std::byte* bytes) const;
};

/// Uninitialised bytes, 4 KiB-aligned, that grow but never shrink. Large ones lie on huge pages
/// where the system has them.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  /// Makes size() at least `size`; the content is lost. Throws std::bad_alloc.
  void Reserve(size_t size);
  size_t size() const { return size_; }
  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  std::span<std::byte> First(size_t size) { return {data_.get(), size}; }
  void Free();

 private:
  std::unique_ptr<std::byte, AlignedDelete> data_;
  size_t size_ = 0;
};

}  // namespace mergepipe
