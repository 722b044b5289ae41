// Reading weights once: the right bytes whatever the alignment and the kernel, and a page cache
// that is left as it was.
#include <gtest/gtest.h>

#include "io/refused_calls.h"
#include "io/weights_file.h"
#include "support/temporary_directory.h"

namespace mergepipe {
namespace {

using test::Refuse;

enum class Kernel { kNew, kWithoutCachestat, kWithoutBoth };

struct Way {
  TransferMode mode;
  Kernel kernel;
};

constexpr size_t kSize = (3 << 20) + 1234;

class StreamingRead : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(WriteNewFile(PosixFileSystem(), path_, content_));
    test::Uncache(path_);
  }

  // Runs `body(file)` on the kernel that the case is about.
  template <typename Body>
  void WithFile(Body&& body) {
    test::InThread([&] {
      const Kernel kernel = GetParam().kernel;
      if (kernel != Kernel::kNew) {
        ASSERT_TRUE(Refuse(test::kCachestat, ENOSYS));
      }
      if (kernel == Kernel::kWithoutBoth) {
        ASSERT_TRUE(Refuse(SYS_preadv2, EOPNOTSUPP));
      }
      const auto file = PosixFileSystem().OpenForStreaming(path_, GetParam().mode);
      ASSERT_TRUE(file) << file.error().ToString();
      EXPECT_EQ((*file)->size(), kSize);
      EXPECT_EQ((*file)->path(), path_);
      body(**file);
    });
  }

  void ExpectRead(ReadableFile& file, uint64_t offset, size_t size, uint64_t skew) {
    const auto out = memory_.Near(offset + skew, size);
    std::fill(out.begin(), out.end(), std::byte{0x5A});
    const Status status = file.ReadAt(offset, out);
    ASSERT_TRUE(status) << status.error().ToString();
    EXPECT_TRUE(test::AsText(out) == std::string_view(content_).substr(offset, size))
        << size << " bytes at " << offset << ", skew " << skew;
  }

  bool on_disk() const { return test::HasDisk(directory_.path()); }

  TemporaryDirectory directory_;
  std::string path_ = directory_ / "weights";
  std::string content_ = test::RandomBytes(kSize, 7);
  test::Memory memory_{2 * kSize};
};

std::vector<Way> WaysOn(const std::vector<Kernel>& kernels) {
  std::vector<Way> ways;
  for (const auto mode : {TransferMode::kAuto, TransferMode::kBuffered, TransferMode::kDirect}) {
    for (const Kernel kernel : kernels) ways.push_back({mode, kernel});
  }
  return ways;
}

std::string NameOf(const testing::TestParamInfo<Way>& test) {
  constexpr std::array kModes{"Auto", "Buffered", "Direct"};
  constexpr std::array kKernels{"NewKernel", "NoCachestat", "NoNowait"};
  return std::string(kModes.at(static_cast<size_t>(test.param.mode))) +
         kKernels.at(static_cast<size_t>(test.param.kernel));
}

INSTANTIATE_TEST_SUITE_P(All, StreamingRead,
                         testing::ValuesIn(WaysOn({Kernel::kNew, Kernel::kWithoutCachestat,
                                                   Kernel::kWithoutBoth})),
                         NameOf);

TEST_P(StreamingRead, AnyRangeToAnyAddress) {
  WithFile([&](ReadableFile& file) {
    for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, uint64_t{4095}, uint64_t{4096},
                                  uint64_t{100'000}, uint64_t{1} << 20}) {
      for (const size_t size : {size_t{1}, size_t{4096}, size_t{65'536}, size_t{65'537},
                                size_t{200'000}, size_t{1} << 20}) {
        for (const uint64_t skew : {uint64_t{0}, uint64_t{1}, uint64_t{512}, uint64_t{4095}}) {
          ExpectRead(file, offset, size, skew);
        }
      }
      ExpectRead(file, offset, kSize - offset, 0);
      ExpectRead(file, offset, kSize - offset, 8);
    }
    EXPECT_TRUE(file.ReadAt(kSize, {}));
  });
}

TEST_P(StreamingRead, RandomRangesOverACacheInShreds) {
  std::mt19937_64 random(11);
  WithFile([&](ReadableFile& file) {
    for (int i = 0; i < 300; ++i) {
      const uint64_t at = random() % (kSize - 1);
      if (i % 3 == 0) test::Cache(path_, at, std::min<uint64_t>(kSize, at + random() % 50'000 + 1));
      const uint64_t offset = random() % kSize;
      const uint64_t limit = i % 2 == 0 ? 10'000 : kSize;
      ExpectRead(file, offset, std::min(kSize - offset, random() % limit + 1),
                 random() % 4 == 0 ? random() % 4096 : 0);
    }
  });
}

TEST_P(StreamingRead, TheEndIsBadInput) {
  WithFile([&](ReadableFile& file) {
    const auto expect_short = [&](uint64_t offset, size_t size) {
      const Status status = file.ReadAt(offset, memory_.Near(offset, size));
      ASSERT_FALSE(status) << offset;
      EXPECT_EQ(status.error().kind(), ErrorKind::kBadInput);
      EXPECT_EQ(status.error().problems()[0].subject, path_);
    };
    expect_short(0, kSize + 1);
    expect_short(kSize, 1);
    expect_short(kSize - 4096, 8192);
    expect_short(kSize + (1 << 20), 100);
    ASSERT_EQ(::truncate(path_.c_str(), (1 << 20) + 100), 0);  // cut while it is open
    expect_short(0, kSize);
    expect_short((1 << 20) - 8192, 200'000);
    expect_short(2 << 20, 200'000);
    ExpectRead(file, 0, (1 << 20) + 100, 0);
  });
}

TEST_P(StreamingRead, NoOffsetOverflows) {
  WithFile([&](ReadableFile& file) {
    EXPECT_FALSE(file.ReadAt(UINT64_MAX - 10, memory_.Near(0, 100)));
    EXPECT_FALSE(file.ReadAt(uint64_t{1} << 63, memory_.Near(0, 100)));
  });
}

TEST_P(StreamingRead, WhatItBringsInGoes) {
  if (!on_disk()) GTEST_SKIP() << "no disk under " << directory_.path();
  size_t stay = 0;
  WithFile([&](ReadableFile& file) {
    for (const uint64_t offset : {uint64_t{0}, uint64_t{5000}, uint64_t{1} << 20}) {
      for (const size_t size : {size_t{1}, size_t{10'000}, size_t{1} << 20, kSize - (1 << 20)}) {
        for (const uint64_t skew : {0, 1}) {
          ExpectRead(file, offset, size, skew);
          stay += test::Count(test::CachedPagesOf(path_));
          test::Uncache(path_);
        }
      }
    }
  });
  EXPECT_LE(stay, test::kPagesInHand);
}

class TellingKernel : public StreamingRead {};
INSTANTIATE_TEST_SUITE_P(All, TellingKernel,
                         testing::ValuesIn(WaysOn({Kernel::kNew, Kernel::kWithoutCachestat})),
                         NameOf);

TEST_P(TellingKernel, WhatWasCachedStays) {
  if (!on_disk()) GTEST_SKIP() << "no disk under " << directory_.path();
  if (!test::TellsWhatIsCached(path_)) GTEST_SKIP() << "not told what is cached";
  WithFile([&](ReadableFile& file) {
    test::Cache(path_, 0, kSize);
    const size_t all = test::CachedPagesOf(path_).size();
    ExpectRead(file, 0, kSize, 0);
    ExpectRead(file, 4096, 1 << 20, 0);
    ExpectRead(file, 5001, 1 << 20, 3);
    ExpectRead(file, 77, 5, 0);
    EXPECT_EQ(test::Count(test::CachedPagesOf(path_)), all);
  });
}

class NewKernel : public StreamingRead {};
INSTANTIATE_TEST_SUITE_P(All, NewKernel, testing::ValuesIn(WaysOn({Kernel::kNew})), NameOf);

TEST_P(NewKernel, ACacheInShredsStaysAsItWas) {
  if (!on_disk()) GTEST_SKIP() << "no disk under " << directory_.path();
  if (!test::TellsWhatIsCached(path_)) GTEST_SKIP() << "not told what is cached";
  WithFile([&](ReadableFile& file) {
    std::mt19937_64 random(5);
    for (int i = 0; i < 20; ++i) {
      const uint64_t at = random() % (kSize - 60'000);
      test::Cache(path_, at, at + random() % 60'000 + 1);
    }
    const std::vector<bool> before = test::CachedPagesOf(path_);
    ASSERT_GT(test::Count(before), 0u);
    ASSERT_LT(test::Count(before), before.size());
    for (int i = 0; i < 40; ++i) {
      const uint64_t offset = random() % kSize;
      ExpectRead(file, offset, std::min(kSize - offset, random() % kSize + 1), i % 2);
      ASSERT_EQ(test::CachedPagesOf(path_), before) << "after reading at " << offset;
    }
  });
}

class RefusedDirect : public StreamingRead {};
INSTANTIATE_TEST_SUITE_P(Direct, RefusedDirect,
                         testing::Values(Way{TransferMode::kDirect, Kernel::kNew}));

TEST_P(RefusedDirect, GoesOnThroughTheCache) {
  WithFile([&](ReadableFile& file) {
    const int direct = test::DirectDescriptorOf(path_);
    if (direct < 0) GTEST_SKIP() << "no direct transfers under " << directory_.path();
    ASSERT_TRUE(Refuse(SYS_pread64, EINVAL, direct));
    ExpectRead(file, 100, 1 << 20, 0);
    ExpectRead(file, 0, kSize, 0);
    if (on_disk()) {
      EXPECT_LE(test::Count(test::CachedPagesOf(path_)), test::kPagesInHand);
    }
  });
}

TEST_P(RefusedDirect, AnErrorOfTheDiskIsReported) {
  if (!on_disk()) GTEST_SKIP() << "no disk under " << directory_.path();
  WithFile([&](ReadableFile& file) {
    const int direct = test::DirectDescriptorOf(path_);
    if (direct < 0) GTEST_SKIP() << "no direct transfers under " << directory_.path();
    ASSERT_TRUE(Refuse(SYS_pread64, EIO, direct));
    const Status status = file.ReadAt(0, memory_.Near(0, 1 << 20));
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().kind(), ErrorKind::kIo);
    EXPECT_EQ(status.error().problems()[0].subject, path_);
    EXPECT_TRUE(file.ReadAt(0, memory_.Near(0, 100))) << "small ranges do not go that way";
  });
}

TEST_P(RefusedDirect, TheDirectDescriptorIsUsedAndClosed) {
  if (!PosixFileSystem().TraitsOf(path_)->direct) GTEST_SKIP() << "no direct transfers here";
  WithFile([&](ReadableFile&) { EXPECT_GE(test::DirectDescriptorOf(path_), 0); });
  EXPECT_EQ(test::DirectDescriptorOf(path_), -1);
  const auto automatic = PosixFileSystem().OpenForStreaming(path_, TransferMode::kAuto);
  EXPECT_GE(test::DirectDescriptorOf(path_), 0);
}

TEST(OpenForStreaming, OnlyFilesOpen) {
  const TemporaryDirectory directory;
  for (const std::string& path : {directory.path(), directory / "none", std::string("/dev/zero")}) {
    const auto file = PosixFileSystem().OpenForStreaming(path, TransferMode::kDirect);
    ASSERT_FALSE(file) << path;
    EXPECT_EQ(file.error().kind(), ErrorKind::kBadInput);
    EXPECT_EQ(file.error().problems()[0].subject, path);
    EXPECT_FALSE(PosixFileSystem().OpenForWriting(path, TransferMode::kDirect)) << path;
  }
}

}  // namespace
}  // namespace mergepipe
