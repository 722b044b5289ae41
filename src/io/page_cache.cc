#include "io/page_cache.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "mergepipe/io/file.h"

namespace mergepipe {
namespace {

// No more than the smallest readahead limit there is (NFS), as the kernel silently cuts a longer
// request.
constexpr uint64_t kPrefetchPiece = 128 * 1024;

// Linux 6.5; not yet in all C libraries.
#ifdef SYS_cachestat
constexpr long kCachestatCall = SYS_cachestat;
#else
constexpr long kCachestatCall = 451;
#endif

struct CachestatRange {
  uint64_t offset;
  uint64_t length;
};
struct Cachestat {
  uint64_t cached;
  uint64_t dirty;
  uint64_t writeback;
  uint64_t evicted;
  uint64_t recently_evicted;
};

std::optional<uint64_t> CachedPages(int fd, uint64_t begin, uint64_t end) {
  CachestatRange range{begin, end - begin};
  Cachestat statistics{};
  if (::syscall(kCachestatCall, fd, &range, &statistics, 0) != 0) return std::nullopt;
  return statistics.cached;
}

void Append(std::vector<CacheRun>& runs, const CacheRun& run) {
  if (!runs.empty() && runs.back().cached == run.cached) {
    runs.back().end = run.end;
  } else {
    runs.push_back(run);
  }
}

// Halves the range until each part is of one kind.
bool AppendRuns(int fd, uint64_t begin, uint64_t end, std::vector<CacheRun>& runs) {
  const auto cached = CachedPages(fd, begin, end);
  if (!cached) return false;
  const uint64_t pages = (end - begin) / PageSize();
  if (*cached == 0 || *cached >= pages || pages == 1) {
    Append(runs, {begin, end, *cached > 0});
    return true;
  }
  const uint64_t middle = begin + pages / 2 * PageSize();
  return AppendRuns(fd, begin, middle, runs) && AppendRuns(fd, middle, end, runs);
}

uint64_t PageBegin(uint64_t offset) { return offset / PageSize() * PageSize(); }
uint64_t PageEnd(uint64_t offset) { return PageBegin(offset + PageSize() - 1); }

}  // namespace

uint64_t PageSize() {
  static const auto kSize =
      std::max(static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)), uint64_t{kDirectAlignment});
  return kSize;
}

PageSplit SplitAtPages(const void* address, uint64_t offset, size_t size) {
  if ((reinterpret_cast<uintptr_t>(address) - offset) % kDirectAlignment != 0) return {size, 0};
  return SplitAtOffsets(offset, offset, size);
}

PageSplit SplitAtOffsets(uint64_t from, uint64_t to, uint64_t size) {
  const uint64_t begin = PageEnd(from);
  const uint64_t end = PageBegin(from + size);
  if ((from - to) % PageSize() != 0 || begin >= end) return {size, 0};
  return {begin - from, end - begin};
}

std::optional<std::vector<CacheRun>> CachedRuns(int fd, uint64_t begin, uint64_t end) {
  std::vector<CacheRun> runs;
  if (begin >= end) return runs;
  if (!AppendRuns(fd, PageBegin(begin), PageEnd(end), runs)) return std::nullopt;
  runs.front().begin = begin;
  runs.back().end = end;
  return runs;
}

void Prefetch(int fd, uint64_t begin, uint64_t end) {
  for (uint64_t at = PageBegin(begin); at < end; at += kPrefetchPiece) {
    const uint64_t length = std::min(kPrefetchPiece, end - at);
    ::posix_fadvise(fd, static_cast<off_t>(at), static_cast<off_t>(length), POSIX_FADV_WILLNEED);
  }
}

void DropAllPages(int fd) { ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); }

void DropPages(int fd, uint64_t begin, uint64_t end) {
  const uint64_t first = PageBegin(begin);
  ::posix_fadvise(fd, static_cast<off_t>(first), static_cast<off_t>(PageEnd(end) - first),
                  POSIX_FADV_DONTNEED);
}

void StartWriteback(int fd) {
  // Its failure is left to fsync, which reports what was not written.
  static_cast<void>(::sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
}

}  // namespace mergepipe
