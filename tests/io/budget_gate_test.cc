#include "mergepipe/io/budget_gate.h"

#include <gtest/gtest.h>

#include <thread>

#include "support/fault_file_system.h"
#include "support/memory_file_system.h"

namespace mergepipe {
namespace {

class BudgetGate : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(WriteNewFile(memory_, "/f", "0123456789")); }

  // "/f" behind `share`, its reads counted by `files_`.
  std::unique_ptr<ReadableFile> Gated(BudgetShare& share, uint64_t free_until = 0) {
    return GateReads(files_.OpenForReading("/f").value(), share, free_until);
  }
  // What is at [offset, offset + size), or "!" and the kind of the error.
  static std::string Read(ReadableFile& file, uint64_t offset, size_t size) {
    std::string text(size, '?');
    const Status status = file.ReadAt(offset, std::as_writable_bytes(std::span(text)));
    return status ? text : "!" + std::string(ErrorKindName(status.error().kind()));
  }
  uint64_t ReadsMade() const {
    uint64_t reads = 0;
    for (const std::string& call : files_.log()) reads += call == "ReadAt /f" ? 1 : 0;
    return reads;
  }

  MemoryFileSystem memory_;
  FaultFileSystem files_{memory_};
};

TEST_F(BudgetGate, TheExactLimitIsGranted) {
  BudgetShare share(Bytes(10));
  const auto file = Gated(share);
  EXPECT_EQ(Read(*file, 0, 4), "0123");
  EXPECT_EQ(share.spent(), Bytes(4));
  EXPECT_EQ(Read(*file, 4, 6), "456789");
  EXPECT_EQ(share.spent(), share.limit());
  EXPECT_EQ(file->size(), 10u);
  EXPECT_EQ(file->path(), "/f");
}

TEST_F(BudgetGate, OneByteOverIsRefusedUnread) {
  BudgetShare share(Bytes(9));
  const auto file = Gated(share);
  EXPECT_EQ(Read(*file, 0, 10), "!internal error");
  EXPECT_EQ(ReadsMade(), 0u);
  EXPECT_EQ(share.spent(), Bytes(0));
  EXPECT_EQ(Read(*file, 0, 9), "012345678");
  EXPECT_EQ(Read(*file, 9, 1), "!internal error");
  EXPECT_EQ(ReadsMade(), 1u);
  EXPECT_EQ(share.spent(), Bytes(9));
}

TEST_F(BudgetGate, ReadingAgainCostsAgain) {
  BudgetShare share(Bytes(8));
  const auto file = Gated(share);
  EXPECT_EQ(Read(*file, 0, 4), "0123");
  EXPECT_EQ(Read(*file, 0, 4), "0123");
  EXPECT_EQ(Read(*file, 0, 4), "!internal error");
}

TEST_F(BudgetGate, BytesOfTheHeaderAreFree) {
  BudgetShare share(Bytes(2));
  const auto file = Gated(share, 5);
  EXPECT_EQ(Read(*file, 0, 5), "01234");
  EXPECT_EQ(share.spent(), Bytes(0));
  EXPECT_EQ(Read(*file, 3, 3), "345");  // 2 of the header, 1 after it
  EXPECT_EQ(share.spent(), Bytes(1));
  EXPECT_EQ(Read(*file, 5, 1), "5");
  EXPECT_EQ(share.spent(), Bytes(2));
  EXPECT_EQ(Read(*file, 4, 2), "!internal error");
  EXPECT_EQ(Read(*file, 4, 1), "4");
}

TEST_F(BudgetGate, FilesShareOneShare) {
  BudgetShare share(Bytes(3));
  const auto first = Gated(share);
  const auto second = Gated(share);
  EXPECT_EQ(Read(*first, 0, 2), "01");
  EXPECT_EQ(Read(*second, 0, 2), "!internal error");
  EXPECT_EQ(Read(*second, 0, 1), "0");
}

TEST(BudgetShare, HugeAmountsDoNotWrapAround) {
  BudgetShare share(Bytes(10));
  ASSERT_TRUE(share.Spend(Bytes(4), "f"));
  EXPECT_FALSE(share.Spend(Bytes(UINT64_MAX), "f"));
  EXPECT_FALSE(share.Spend(Bytes(UINT64_MAX - 3), "f"));
  EXPECT_EQ(share.spent(), Bytes(4));

  BudgetShare unlimited(Bytes::Unlimited());
  EXPECT_TRUE(unlimited.Spend(Bytes(UINT64_MAX), "f"));
  EXPECT_FALSE(unlimited.Spend(Bytes(1), "f"));
  BudgetShare nothing(Bytes(0));
  EXPECT_TRUE(nothing.Spend(Bytes(0), "f"));
  EXPECT_FALSE(nothing.Spend(Bytes(1), "f"));
}

TEST(BudgetShare, TheErrorNamesTheFile) {
  BudgetShare share(Bytes(1));
  const Status status = share.Spend(Bytes(2), "/model/f");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind(), ErrorKind::kInternal);
  EXPECT_EQ(status.error().problems()[0].subject, "/model/f");
}

TEST(BudgetShare, RacingThreadsNeverOverspend) {
  constexpr uint64_t kLimit = 100'000;
  constexpr uint64_t kAmount = 3;
  BudgetShare share{Bytes(kLimit)};
  std::atomic<uint64_t> granted = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (uint64_t n = 0; n < kLimit / kAmount; ++n) {
        if (share.Spend(Bytes(kAmount), "f")) ++granted;
        if (share.spent() > share.limit()) ADD_FAILURE() << "overspent";
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(granted, kLimit / kAmount);
  EXPECT_EQ(share.spent(), Bytes(kLimit / kAmount * kAmount));
}

TEST_F(BudgetGate, GateAllReadsChargesEveryFile) {
  ASSERT_TRUE(WriteNewFile(memory_, "/g", "abc"));
  BudgetShare share(Bytes(12));
  const auto gated = GateAllReads(files_, share);
  EXPECT_EQ(ReadSmallFile(*gated, "/f", 100).value(), "0123456789");
  EXPECT_EQ(share.spent(), Bytes(10));
  const auto over = ReadSmallFile(*gated, "/g", 100);
  ASSERT_FALSE(over);
  EXPECT_EQ(over.error().kind(), ErrorKind::kInternal);
  EXPECT_EQ(gated->Stat("/g")->size, 3u);
  EXPECT_EQ(gated->List("/")->size(), 2u);
  EXPECT_TRUE(gated->Exists("/g").value());
  EXPECT_EQ(share.spent(), Bytes(10));
}

TEST_F(BudgetGate, GateAllReadsRefusesToWrite) {
  BudgetShare share(Bytes(100));
  const auto gated = GateAllReads(files_, share);
  EXPECT_FALSE(gated->Create("/new", 1));
  EXPECT_FALSE(gated->OpenForWriting("/f"));
  EXPECT_FALSE(gated->CreateDirectory("/d"));
  EXPECT_FALSE(gated->CreateDirectories("/d"));
  EXPECT_FALSE(gated->SyncDirectory("/"));
  EXPECT_FALSE(gated->Rename("/f", "/g", RenameMode::kReplace));
  EXPECT_FALSE(gated->Remove("/f"));
  EXPECT_FALSE(gated->Lock("/lock"));
  EXPECT_EQ(files_.operations(), 0u);
}

TEST_F(BudgetGate, CountReadsCountsAndDoesNotRefuse) {
  std::atomic<uint64_t> counter = 5;
  const auto file = CountReads(files_.OpenForReading("/f").value(), counter);
  EXPECT_EQ(Read(*file, 2, 3), "234");
  EXPECT_EQ(Read(*file, 2, 3), "234");
  EXPECT_EQ(counter, 11u);
  EXPECT_EQ(file->size(), 10u);
}

}  // namespace
}  // namespace mergepipe
