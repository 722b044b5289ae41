#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <new>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "io/page_cache.h"
#include "mergepipe/io/file.h"

namespace mergepipe::test {

/// Bytes of which no two pages are alike.
inline std::string RandomBytes(size_t size, uint64_t seed) {
  std::string bytes(size, '\0');
  std::mt19937_64 random(seed);
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

/// Memory of which any address can be had: `Near(offset)` leaves the same rest as a file's offset
/// by kDirectAlignment, `Near(offset + 1)` does not.
class Memory {
 public:
  explicit Memory(size_t size)
      : size_(size),
        begin_(static_cast<std::byte*>(::operator new(size + kDirectAlignment, kAlignment))) {}
  ~Memory() { ::operator delete(begin_, kAlignment); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  std::span<std::byte> Near(uint64_t offset, size_t size) const {
    EXPECT_LE(size, size_);
    return {begin_ + offset % kDirectAlignment, size};
  }

 private:
  static constexpr std::align_val_t kAlignment{kDirectAlignment};
  size_t size_;
  std::byte* begin_;
};

inline std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// For each page of the file whether it is in the page cache. By mincore: another way than that of
/// the code under test.
inline std::vector<bool> CachedPagesOf(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info {};
  EXPECT_EQ(::fstat(fd, &info), 0) << path;
  const auto size = static_cast<size_t>(info.st_size);
  void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  EXPECT_NE(mapped, MAP_FAILED) << path;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> flags((size + page - 1) / page);
  EXPECT_EQ(::mincore(mapped, size, flags.data()), 0) << path;
  ::munmap(mapped, size);
  ::close(fd);
  std::vector<bool> cached;
  for (const unsigned char flag : flags) cached.push_back((flag & 1u) != 0);
  return cached;
}

inline size_t Count(const std::vector<bool>& flags) {
  size_t count = 0;
  for (const bool flag : flags) count += flag ? 1 : 0;
  return count;
}

/// Puts the pages that hold [begin, end) into the page cache, and no others.
inline void Cache(const std::string& path, uint64_t begin, uint64_t end) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
  std::vector<char> bytes(end - begin);
  EXPECT_EQ(::pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(begin)),
            static_cast<ssize_t>(bytes.size()));
  ::close(fd);
}

/// The kernel drops what it is asked to but for a page that it has in hand just then: so many of a
/// test's thousands may stay.
inline constexpr size_t kPagesInHand = 2;

/// Takes all of a file out of the page cache.
inline void Uncache(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(::fsync(fd), 0) << path;
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
}

/// Whether files at `directory` can leave the page cache at all: not where the cache is the disk.
inline bool HasDisk(const std::string& directory) {
  const auto traits = PosixFileSystem().TraitsOf(directory);
  return traits && traits->filesystem != "tmpfs" && traits->filesystem != "ramfs";
}

/// Whether cachestat says what is cached of the file: not before Linux 6.5, and not of an overlay.
inline bool TellsWhatIsCached(const std::string& path) {
  const auto traits = PosixFileSystem().TraitsOf(path);
  const auto file = PosixFileSystem().OpenForReading(path);
  return traits && traits->filesystem != "overlay" && file &&
         CachedRuns((*file)->descriptor(), 0, 1).has_value();
}

/// The descriptor of this process that reads or writes `path` past the page cache, or -1.
inline int DirectDescriptorOf(const std::string& path) {
  struct stat wanted {};
  EXPECT_EQ(::stat(path.c_str(), &wanted), 0);
  for (int fd = 0; fd < 256; ++fd) {
    struct stat info {};
    if (::fstat(fd, &info) != 0 || info.st_ino != wanted.st_ino) continue;
    if ((::fcntl(fd, F_GETFL) & O_DIRECT) != 0) return fd;
  }
  return -1;
}

}  // namespace mergepipe::test
