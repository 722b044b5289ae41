#include "mergepipe/io/aligned_buffer.h"

#include <sys/mman.h>

#include <new>

namespace mergepipe {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

void AlignedDelete::operator()(std::byte* bytes) const {
  ::operator delete(bytes, std::align_val_t(alignment));
}

void AlignedBuffer::Reserve(size_t size) {
  if (size <= size_) return;
  Free();
  const size_t alignment = size >= kHugePage ? kHugePage : kPage;
  data_ = {static_cast<std::byte*>(::operator new(size, std::align_val_t(alignment))),
           AlignedDelete{alignment}};
  // A wish: without it the bytes are only slower to reach for the first time.
  if (alignment == kHugePage)
    static_cast<void>(::madvise(data_.get(), size / kHugePage * kHugePage, MADV_HUGEPAGE));
  size_ = size;
}

void AlignedBuffer::Free() {
  data_.reset();
  size_ = 0;
}

}  // namespace mergepipe
