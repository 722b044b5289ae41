#include "exec/aligned_buffer.h"

#include <new>

namespace mergepipe {
namespace {
constexpr std::align_val_t kAlignment{4096};
}

void AlignedBuffer::Deleter::operator()(std::byte* bytes) const {
  ::operator delete(bytes, kAlignment);
}

void AlignedBuffer::Reserve(size_t size) {
  if (size <= size_) return;
  Free();
  data_.reset(static_cast<std::byte*>(::operator new(size, kAlignment)));
  size_ = size;
}

void AlignedBuffer::Free() {
  data_.reset();
  size_ = 0;
}

}  // namespace mergepipe
