#include "mergepipe/io/buffer_pool.h"

#include <sys/mman.h>

#include <new>

namespace mergepipe {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;

std::byte* Map(size_t size) {
  void* address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) throw std::bad_alloc();
  // A wish: without it the bytes are only slower to reach for the first time.
  static_cast<void>(::madvise(address, size, MADV_HUGEPAGE));
  return static_cast<std::byte*>(address);
}

}  // namespace

size_t BufferPool::SizeOf(size_t size) { return (size + kPage - 1) / kPage * kPage; }

BufferPool::BufferPool(size_t limit)
    : size_((limit + kHugePage - 1) / kHugePage * kHugePage),
      begin_(size_ == 0 ? nullptr : Map(size_)) {
  if (size_ > 0) holes_.emplace(0, size_);
}

BufferPool::~BufferPool() {
  if (begin_ != nullptr) ::munmap(begin_, size_);
}

std::span<std::byte> BufferPool::Take(size_t size) {
  const size_t wanted = SizeOf(size);
  if (wanted == 0) return {};
  const std::lock_guard lock(mutex_);
  // The smallest hole that is large enough, so that large ones stay.
  auto best = holes_.end();
  for (auto hole = holes_.begin(); hole != holes_.end(); ++hole) {
    if (hole->second >= wanted && (best == holes_.end() || hole->second < best->second))
      best = hole;
  }
  if (best == holes_.end()) return TakeApart(wanted);
  const auto [offset, length] = *best;
  holes_.erase(best);
  if (length > wanted) holes_.emplace(offset + wanted, length - wanted);
  return {begin_ + offset, wanted};
}

// The holes together are large enough, but none of them is: their pages make room for others.
std::span<std::byte> BufferPool::TakeApart(size_t size) {
  for (const auto& [offset, length] : holes_)
    static_cast<void>(::madvise(begin_ + offset, length, MADV_DONTNEED));
  apart_ += size;
  return {Map(size), size};
}

void BufferPool::Give(std::span<std::byte> buffer) {
  if (buffer.empty()) return;
  if (buffer.data() < begin_ || buffer.data() >= begin_ + size_) {
    ::munmap(buffer.data(), buffer.size());
    const std::lock_guard lock(mutex_);
    apart_ -= buffer.size();
    return;
  }
  const std::lock_guard lock(mutex_);
  if (apart_ > 0) static_cast<void>(::madvise(buffer.data(), buffer.size(), MADV_DONTNEED));
  auto offset = static_cast<size_t>(buffer.data() - begin_);
  size_t length = buffer.size();
  const auto next = holes_.lower_bound(offset);
  if (next != holes_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      offset = before->first;
      length += before->second;
      holes_.erase(before);
    }
  }
  if (next != holes_.end() && offset + length == next->first) {
    length += next->second;
    holes_.erase(next);
  }
  holes_.emplace(offset, length);
}

}  // namespace mergepipe
