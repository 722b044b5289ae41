#include "io/page_cache.h"

#include <gtest/gtest.h>

#include "io/descriptor.h"
#include "io/weights_file.h"
#include "support/temporary_directory.h"

namespace mergepipe {
namespace {

const void* At(uintptr_t address) { return reinterpret_cast<const void*>(address); }

TEST(SplitAtPages, CutsAtWholePages) {
  const uint64_t page = PageSize();
  for (const uint64_t head : {uint64_t{0}, uint64_t{1}, page - 1}) {
    for (const uint64_t interior : {uint64_t{0}, page, 5 * page}) {
      for (const uint64_t tail : {uint64_t{0}, uint64_t{1}, page - 1}) {
        const uint64_t offset = 7 * page + (page - head) % page;
        const PageSplit split = SplitAtPages(At(offset), offset, head + interior + tail);
        EXPECT_EQ(split.interior, interior) << head << " " << tail;
        EXPECT_EQ(split.head, interior == 0 ? head + tail : head) << head << " " << tail;
      }
    }
  }
}

TEST(SplitAtPages, AnotherRestOfTheAddressLeavesNoInterior) {
  const uint64_t page = PageSize();
  EXPECT_EQ(SplitAtPages(At(kDirectAlignment * 3 + 5), page + 5, 10 * page).interior, 9 * page);
  EXPECT_EQ(SplitAtPages(At(kDirectAlignment * 3 + 6), page + 5, 10 * page).interior, 0u);
  EXPECT_EQ(SplitAtPages(At(kDirectAlignment * 3), page + 5, 10 * page).head, 10 * page);
}

TEST(SplitAtPages, ARangeWithinAPageIsHead) {
  const PageSplit split = SplitAtPages(At(100), 100, 200);
  EXPECT_EQ(split.head, 200u);
  EXPECT_EQ(split.interior, 0u);
  EXPECT_EQ(SplitAtPages(At(0), 0, 0).interior, 0u);
}

TEST(SplitAtPages, TwoOffsetsMustMatch) {
  const uint64_t page = PageSize();
  EXPECT_EQ(SplitAtOffsets(page + 5, 9 * page + 5, 3 * page).head, page - 5);
  EXPECT_EQ(SplitAtOffsets(page + 5, 9 * page + 5, 3 * page).interior, 2 * page);
  EXPECT_EQ(SplitAtOffsets(page + 5, 5, 3 * page).interior, 2 * page);
  EXPECT_EQ(SplitAtOffsets(page + 5, 6, 3 * page).interior, 0u);
  EXPECT_EQ(SplitAtOffsets(page + 5, 6, 3 * page).head, 3 * page);
}

class PageCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::HasDisk(directory_.path())) GTEST_SKIP() << "no disk under " << directory_.path();
    ASSERT_TRUE(WriteNewFile(PosixFileSystem(), path_, test::RandomBytes(40 * PageSize() + 17, 1)));
    test::Uncache(path_);
    ASSERT_EQ(test::Count(test::CachedPagesOf(path_)), 0u);
  }

  TemporaryDirectory directory_;
  std::string path_ = directory_ / "f";
};

TEST_F(PageCacheTest, RunsAreWhatMincoreSays) {
  const uint64_t page = PageSize();
  test::Cache(path_, 3 * page + 1, 5 * page);
  test::Cache(path_, 20 * page, 20 * page + 1);
  test::Cache(path_, 39 * page, 40 * page + 1);
  const Descriptor fd(OpenRetrying(path_, O_RDONLY));
  if (!test::TellsWhatIsCached(path_)) GTEST_SKIP() << "not told what is cached";
  const auto runs = CachedRuns(fd.get(), page + 5, 40 * page + 17);
  ASSERT_TRUE(runs);

  const std::vector<CacheRun> expected = {
      {page + 5, 3 * page, false},   {3 * page, 5 * page, true},
      {5 * page, 20 * page, false},  {20 * page, 21 * page, true},
      {21 * page, 39 * page, false}, {39 * page, 40 * page + 17, true}};
  ASSERT_EQ(runs->size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ((*runs)[i].begin, expected[i].begin) << i;
    EXPECT_EQ((*runs)[i].end, expected[i].end) << i;
    EXPECT_EQ((*runs)[i].cached, expected[i].cached) << i;
  }
  EXPECT_TRUE(CachedRuns(fd.get(), 5, 5)->empty());
}

TEST_F(PageCacheTest, AskingReadsNothing) {
  const Descriptor fd(OpenRetrying(path_, O_RDONLY));
  static_cast<void>(CachedRuns(fd.get(), 0, 40 * PageSize()));
  EXPECT_EQ(test::Count(test::CachedPagesOf(path_)), 0u);
}

TEST_F(PageCacheTest, WhatIsDroppedIsWholePagesAndNoOthers) {
  const uint64_t page = PageSize();
  test::Cache(path_, 0, 40 * page + 17);
  const Descriptor fd(OpenRetrying(path_, O_RDONLY));
  DropPages(fd.get(), 2 * page + 100, 4 * page + 100);
  std::vector<bool> expected(41, true);
  expected[2] = expected[3] = expected[4] = false;
  EXPECT_EQ(test::CachedPagesOf(path_), expected);
}

TEST_F(PageCacheTest, PrefetchReadsWhatIsAskedAndNoMore) {
  const uint64_t page = PageSize();
  const Descriptor fd(OpenRetrying(path_, O_RDONLY));
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_RANDOM);
  Prefetch(fd.get(), 7 * page + 5, 9 * page + 1);
  std::vector<bool> expected(41, false);
  expected[7] = expected[8] = expected[9] = true;
  for (int wait = 0; wait < 500 && test::CachedPagesOf(path_) != expected; ++wait) ::usleep(10'000);
  EXPECT_EQ(test::CachedPagesOf(path_), expected);
}

}  // namespace
}  // namespace mergepipe
