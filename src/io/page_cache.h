#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace mergepipe {

/// Of the page cache; at least kDirectAlignment.
uint64_t PageSize();

/// A range of bytes cut at pages: `head` bytes up to the first whole page, `interior` bytes of
/// whole pages, the rest. All is head if no whole page is in it, or if `address` and `offset` do
/// not leave the same rest by kDirectAlignment.
struct PageSplit {
  size_t head;
  size_t interior;
};
PageSplit SplitAtPages(const void* address, uint64_t offset, size_t size);
/// The same for a range at two offsets: all is head if they do not leave the same rest by
/// PageSize().
PageSplit SplitAtOffsets(uint64_t from, uint64_t to, uint64_t size);

/// Pages of a file that are all in the page cache, or none of them. In bytes.
struct CacheRun {
  uint64_t begin;
  uint64_t end;
  bool cached;
};

/// The runs of the pages that hold [begin, end), in order and cut to that range; two neighbours
/// differ. Nothing is read or touched. nullopt where the kernel does not tell (cachestat: since
/// 6.5, and later only to those who could write to the file).
std::optional<std::vector<CacheRun>> CachedRuns(int fd, uint64_t begin, uint64_t end);

/// Starts to read the pages that hold [begin, end), and no others.
void Prefetch(int fd, uint64_t begin, uint64_t end);

/// Lets go of the pages that hold [begin, end), as far as they are clean.
void DropPages(int fd, uint64_t begin, uint64_t end);
void DropAllPages(int fd);

/// Starts to write the dirty pages of the file to the disk, without waiting for them.
void StartWriteback(int fd);

}  // namespace mergepipe
