// Writing weights once: the right bytes whatever the alignment, also where writers meet within a
// page.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <thread>

#include "io/refused_calls.h"
#include "io/weights_file.h"
#include "support/temporary_directory.h"

namespace mergepipe {
namespace {

using test::Refuse;

constexpr size_t kSize = (4 << 20) + 321;

class StreamingWrite : public testing::TestWithParam<TransferMode> {
 protected:
  // Created with its size, and full of something that must be overwritten.
  void SetUp() override {
    ASSERT_TRUE(PosixFileSystem().Create(path_, kSize));
    const auto file = PosixFileSystem().OpenForWriting(path_).value();
    ASSERT_TRUE(file->WriteAt(0, std::as_bytes(std::span(expected_))));
  }

  std::unique_ptr<WritableFile> Open() {
    auto file = PosixFileSystem().OpenForWriting(path_, GetParam());
    if (!file) ADD_FAILURE() << file.error().ToString();
    return std::move(file).value();
  }

  void Write(WritableFile& file, uint64_t offset, size_t size, uint64_t skew) {
    const auto bytes = memory_.Near(offset + skew, size);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random_());
    const Status status = file.WriteAt(offset, bytes);
    ASSERT_TRUE(status) << status.error().ToString();
    std::copy_n(test::AsText(bytes).begin(), size,
                expected_.begin() + static_cast<std::ptrdiff_t>(offset));
  }

  // As other readers see it, and as it lies on the disk.
  void ExpectContent() {
    EXPECT_TRUE(ReadSmallFile(PosixFileSystem(), path_, 2 * kSize).value() == expected_);
    test::Uncache(path_);
    EXPECT_TRUE(ReadSmallFile(PosixFileSystem(), path_, 2 * kSize).value() == expected_);
  }

  TemporaryDirectory directory_;
  std::string path_ = directory_ / "out";
  std::string expected_ = test::RandomBytes(kSize, 3);
  test::Memory memory_{kSize};
  std::mt19937_64 random_{17};
};

std::string NameOf(const testing::TestParamInfo<TransferMode>& test) {
  constexpr std::array kModes{"Auto", "Buffered", "Direct"};
  return kModes.at(static_cast<size_t>(test.param));
}

INSTANTIATE_TEST_SUITE_P(All, StreamingWrite,
                         testing::Values(TransferMode::kAuto, TransferMode::kBuffered,
                                         TransferMode::kDirect),
                         NameOf);

TEST_P(StreamingWrite, AnyRangeFromAnyAddress) {
  const auto file = Open();
  EXPECT_EQ(file->path(), path_);
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, uint64_t{4095}, uint64_t{4096},
                                uint64_t{100'000}, uint64_t{1} << 20}) {
    for (const size_t size : {size_t{0}, size_t{1}, size_t{4096}, size_t{65'536}, size_t{65'537},
                              size_t{200'000}, size_t{1} << 20}) {
      for (const uint64_t skew : {uint64_t{0}, uint64_t{1}, uint64_t{512}}) {
        Write(*file, offset, size, skew);
      }
    }
  }
  Write(*file, 123, kSize - 123, 0);
  EXPECT_TRUE(file->Sync());
  EXPECT_TRUE(file->Close());
  ExpectContent();
}

TEST_P(StreamingWrite, RandomRangesOneOverTheOther) {
  const auto file = Open();
  for (int i = 0; i < 200; ++i) {
    const uint64_t offset = random_() % kSize;
    const size_t limit = i % 2 == 0 ? 10'000 : kSize;
    Write(*file, offset, std::min(kSize - offset, random_() % limit + 1),
          random_() % 4 == 0 ? random_() % 4096 : 0);
  }
  EXPECT_TRUE(file->Sync());
  EXPECT_TRUE(file->Close());
  ExpectContent();
}

TEST_P(StreamingWrite, GrowsWhereItMust) {
  expected_.append(700'000, '\0');
  const auto file = Open();
  Write(*file, kSize - 5000, 300'000, 0);
  Write(*file, kSize + 295'000, 405'000, 0);
  EXPECT_TRUE(file->Sync());
  EXPECT_TRUE(file->Close());
  ExpectContent();
}

TEST_P(StreamingWrite, LeavesThePageCacheWithSync) {
  if (!test::HasDisk(directory_.path())) GTEST_SKIP() << "no disk under " << directory_.path();
  const auto file = Open();
  Write(*file, 100, kSize - 100, 0);
  Write(*file, 200'000, 300'000, 3);
  EXPECT_TRUE(file->Sync());
  EXPECT_LE(test::Count(test::CachedPagesOf(path_)), test::kPagesInHand);
}

TEST_P(StreamingWrite, DirectIsPastThePageCache) {
  if (!PosixFileSystem().TraitsOf(path_)->direct || GetParam() == TransferMode::kBuffered) {
    GTEST_SKIP() << "buffered here";
  }
  const auto file = Open();
  test::Uncache(path_);
  Write(*file, 5000, 1 << 20, 0);
  std::vector<bool> cached = test::CachedPagesOf(path_);
  EXPECT_EQ(test::Count(cached), 2u);
  EXPECT_TRUE(cached[5000 / PageSize()]);
  EXPECT_TRUE(cached[(5000 + (1 << 20)) / PageSize()]);
}

TEST_P(StreamingWrite, AClosedFileIsClosed) {
  const auto file = Open();
  EXPECT_TRUE(file->Close());
  EXPECT_FALSE(file->WriteAt(0, memory_.Near(0, 10)));
  EXPECT_FALSE(file->WriteAt(0, memory_.Near(0, 1 << 20)));
  EXPECT_FALSE(file->Sync());
  EXPECT_TRUE(file->Close());
}

TEST_P(StreamingWrite, RefusedDirectTransfersGoOnThroughTheCache) {
  test::InThread([&] {
    const auto file = Open();
    const int direct = test::DirectDescriptorOf(path_);
    if (direct < 0) GTEST_SKIP() << "no direct descriptor";
    ASSERT_TRUE(Refuse(SYS_pwrite64, EINVAL, direct));
    Write(*file, 100, 1 << 20, 0);
    Write(*file, 1 << 20, 1 << 20, 0);
    EXPECT_TRUE(file->Sync());
    ExpectContent();
  });
}

TEST_P(StreamingWrite, AFullDiskIsReported) {
  test::InThread([&] {
    const auto file = Open();
    ASSERT_TRUE(Refuse(SYS_pwrite64, ENOSPC));
    for (const size_t size : {100, 1 << 20}) {
      const Status status = file->WriteAt(4096, memory_.Near(0, size));
      ASSERT_FALSE(status);
      EXPECT_EQ(status.error().kind(), ErrorKind::kNoSpace);
      EXPECT_EQ(status.error().problems()[0].subject, path_);
    }
  });
}

// ------------------------------------------------------------------------------------- neighbours

struct Range {
  size_t begin;
  size_t end;
};

// Adjacent ranges, most borders within a page: small ones, of which several share a page, and large
// ones with an interior.
std::vector<Range> CutAtRandom(std::mt19937_64& random) {
  std::vector<Range> ranges;
  for (size_t at = 0; at < kSize;) {
    const size_t size = random() % 3 == 0 ? random() % 3000 + 1 : random() % 400'000 + 1;
    const size_t end = std::min(kSize, at + size);
    ranges.push_back({at, end});
    at = end;
  }
  std::shuffle(ranges.begin(), ranges.end(), random);
  return ranges;
}

// Writes every `step`th of the ranges from the `first` on: most from memory that lets them go
// direct, some from other memory, some as copies of `source`.
bool WriteEvery(WritableFile& file, ReadableFile& source, std::string_view content,
                const std::vector<Range>& ranges, size_t first, size_t step) {
  const test::Memory memory(kSize);
  for (size_t i = first; i < ranges.size(); i += step) {
    const auto [begin, end] = ranges[i];
    if (i % 4 == 0) {
      if (!file.CopyFrom(source, begin, begin, end - begin)) return false;
      continue;
    }
    const auto bytes = memory.Near(begin + (i % 5 == 0 ? 1 : 0), end - begin);
    std::copy_n(content.begin() + static_cast<std::ptrdiff_t>(begin), bytes.size(),
                reinterpret_cast<char*>(bytes.data()));
    if (!file.WriteAt(begin, bytes)) return false;
  }
  return true;
}

constexpr size_t kProcesses = 2;
constexpr size_t kThreads = 6;

// What one process of a job does, in a process of its own.
[[noreturn]] void BeWriter(const std::string& path, const std::string& source_path,
                           TransferMode mode, std::string_view content,
                           const std::vector<Range>& ranges, size_t process) {
  const auto file = PosixFileSystem().OpenForWriting(path, mode);
  const auto source = PosixFileSystem().OpenForStreaming(source_path, mode);
  if (!file || !source) ::_exit(2);
  std::atomic<bool> good{true};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const size_t first = process * kThreads + t;
      if (!WriteEvery(**file, **source, content, ranges, first, kProcesses * kThreads)) {
        good = false;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (!(*file)->Sync() || !(*file)->Close()) ::_exit(3);
  ::_exit(good ? 0 : 4);
}

class Neighbours : public StreamingWrite {
 protected:
  // All processes write their ranges of new content at once.
  void Round(uint64_t seed, const std::array<TransferMode, kProcesses>& modes) {
    std::mt19937_64 random(seed);
    expected_ = test::RandomBytes(kSize, seed);
    const std::vector<Range> ranges = CutAtRandom(random);
    ASSERT_TRUE(PosixFileSystem().Remove(source_path_));
    ASSERT_TRUE(WriteNewFile(PosixFileSystem(), source_path_, expected_));
    std::vector<pid_t> writers;
    for (size_t p = 0; p < kProcesses; ++p) {
      const pid_t pid = ::fork();
      if (pid == 0) BeWriter(path_, source_path_, modes.at(p), expected_, ranges, p);
      writers.push_back(pid);
    }
    for (const pid_t pid : writers) {
      int status = 0;
      ASSERT_EQ(::waitpid(pid, &status, 0), pid);
      EXPECT_EQ(status, 0) << "a writer failed with code " << WEXITSTATUS(status);
    }
    ExpectContent();
  }

  std::string source_path_ = directory_ / "source";
};

INSTANTIATE_TEST_SUITE_P(Writers, Neighbours,
                         testing::Values(TransferMode::kAuto, TransferMode::kBuffered),
                         [](const auto& test) {
                           return test.param == TransferMode::kAuto ? "Direct" : "Mixed";
                         });

TEST_P(Neighbours, KeepEachOthersBytes) {
  for (uint64_t seed = 1; seed <= 12 && !HasFailure(); ++seed) {
    Round(seed, {TransferMode::kAuto, GetParam()});
  }
}

// A file that was never written has extents without content, which the first write to a page fills
// with zeros around it.
TEST_P(Neighbours, KeepEachOthersBytesInANewFile) {
  for (uint64_t seed = 101; seed <= 106 && !HasFailure(); ++seed) {
    ASSERT_TRUE(PosixFileSystem().Remove(path_));
    ASSERT_TRUE(PosixFileSystem().Create(path_, kSize));
    Round(seed, {TransferMode::kAuto, GetParam()});
  }
}

TEST_P(Neighbours, KeepEachOthersBytesInASparseFile) {
  for (uint64_t seed = 201; seed <= 206 && !HasFailure(); ++seed) {
    ASSERT_TRUE(PosixFileSystem().Remove(path_));
    ASSERT_TRUE(PosixFileSystem().Create(path_, 0));
    ASSERT_EQ(::truncate(path_.c_str(), kSize), 0);
    Round(seed, {TransferMode::kAuto, GetParam()});
  }
}

// Cached in large folios, as by a verification before.
TEST_P(Neighbours, KeepEachOthersBytesInACachedFile) {
  for (uint64_t seed = 301; seed <= 306 && !HasFailure(); ++seed) {
    EXPECT_TRUE(ReadSmallFile(PosixFileSystem(), path_, 2 * kSize));
    Round(seed, {TransferMode::kAuto, GetParam()});
  }
}

}  // namespace
}  // namespace mergepipe
