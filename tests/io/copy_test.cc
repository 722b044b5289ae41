// WritableFile::CopyFrom, by the kernel and by hand.
#include <gtest/gtest.h>

#include "io/refused_calls.h"
#include "io/weights_file.h"
#include "mergepipe/io/budget_gate.h"
#include "support/memory_file_system.h"
#include "support/temporary_directory.h"

namespace mergepipe {
namespace {

using test::Refuse;

constexpr size_t kSize = (3 << 20) + 77;

struct Piece {
  uint64_t from;
  uint64_t to;
  uint64_t length;
};

constexpr std::array kPieces{Piece{0, 0, 0},           Piece{0, 0, 1},
                             Piece{5, 4096, 100'000},  Piece{4096, 8192, 4096},
                             Piece{100, 200, 1 << 20}, Piece{1 << 20, (1 << 20) + 3, 1 << 20},
                             Piece{kSize - 10, 7, 10}, Piece{7, 0, kSize - 7}};

class CopyTest : public testing::Test {
 protected:
  CopyTest() {
    EXPECT_TRUE(WriteNewFile(PosixFileSystem(), from_, content_));
    EXPECT_TRUE(WriteNewFile(PosixFileSystem(), to_, expected_));
    test::Uncache(from_);
  }

  std::unique_ptr<ReadableFile> Source() {
    return PosixFileSystem().OpenForStreaming(from_, TransferMode::kAuto).value();
  }
  static std::unique_ptr<WritableFile> Target(const std::string& path,
                                              TransferMode mode = TransferMode::kAuto) {
    return PosixFileSystem().OpenForWriting(path, mode).value();
  }

  // Copies all kinds of pieces from `source` to the file `path`, and compares.
  void ExpectCopies(ReadableFile& source, WritableFile& target, const std::string& path) {
    for (const auto& [from, to, length] : kPieces) {
      const Status status = target.CopyFrom(source, from, to, length);
      ASSERT_TRUE(status) << status.error().ToString();
      expected_.replace(to, length, content_, from, length);
      ASSERT_TRUE(Content(path) == expected_) << length << " bytes from " << from << " to " << to;
    }
    EXPECT_TRUE(target.Sync());
    EXPECT_TRUE(target.Close());
    test::Uncache(path);
    EXPECT_TRUE(Content(path) == expected_);
  }

  static std::string Content(const std::string& path) {
    return ReadSmallFile(PosixFileSystem(), path, 2 * kSize).value();
  }

  TemporaryDirectory directory_;
  std::string from_ = directory_ / "from";
  std::string to_ = directory_ / "to";
  std::string content_ = test::RandomBytes(kSize, 1);
  std::string expected_ = test::RandomBytes(kSize, 2);
};

TEST_F(CopyTest, ByWhateverWay) {
  const auto source = Source();
  EXPECT_GE(source->descriptor(), 0);
  ExpectCopies(*source, *Target(to_), to_);
}

TEST_F(CopyTest, ByTheKernel) {
  const auto source = Source();
  ExpectCopies(*source, *Target(to_, TransferMode::kBuffered), to_);
}

TEST_F(CopyTest, ByTheKernelAloneWhereItIsBuffered) {
  test::InThread([&] {
    const auto source = Source();
    const auto target = Target(to_, TransferMode::kBuffered);
    ASSERT_TRUE(Refuse(SYS_pwrite64, EIO));
    const Status status = target->CopyFrom(*source, 100, 200, 1 << 20);
    EXPECT_TRUE(status) << status.error().ToString();
  });
}

TEST_F(CopyTest, ByHandWhereTheKernelDoesNot) {
  for (const int error : {EXDEV, EOPNOTSUPP, EINVAL, ENOSYS, EBADF}) {
    test::InThread([&] {
      ASSERT_TRUE(Refuse(SYS_copy_file_range, static_cast<unsigned>(error)));
      ExpectCopies(*Source(), *Target(to_, TransferMode::kBuffered), to_);
    });
  }
}

TEST_F(CopyTest, AcrossFilesystems) {
  if (PosixFileSystem().Exists("/dev/shm").value_or(false) && test::HasDisk(directory_.path())) {
    const std::string path = "/dev/shm/mergepipe-copy-test-" + std::to_string(::getpid());
    ASSERT_TRUE(WriteNewFile(PosixFileSystem(), path, expected_));
    ExpectCopies(*Source(), *Target(path), path);
    ASSERT_TRUE(PosixFileSystem().Remove(path));
  } else {
    GTEST_SKIP() << "only one filesystem here";
  }
}

TEST_F(CopyTest, IntoAPlainFile) {
  ExpectCopies(*Source(), *PosixFileSystem().OpenForWriting(to_).value(), to_);
}

TEST_F(CopyTest, FromAFileWithoutADescriptor) {
  MemoryFileSystem memory;
  ASSERT_TRUE(WriteNewFile(memory, "/from", content_));
  const auto source = memory.OpenForReading("/from").value();
  EXPECT_EQ(source->descriptor(), -1);
  ExpectCopies(*source, *Target(to_), to_);
}

// A copy by the kernel would go around the gate.
TEST_F(CopyTest, NeverAroundAGateOrACounter) {
  BudgetShare share{Bytes(1000)};
  const auto gated = GateReads(Source(), share, 0);
  std::atomic<uint64_t> counter{0};
  const auto counted = CountReads(Source(), counter);
  const auto target = Target(to_);
  EXPECT_FALSE(target->CopyFrom(*gated, 0, 0, 1001));
  EXPECT_EQ(share.spent().count(), 0u);
  EXPECT_TRUE(target->CopyFrom(*gated, 0, 0, 1000));
  EXPECT_EQ(share.spent().count(), 1000u);
  EXPECT_TRUE(target->CopyFrom(*counted, 100, 0, 2'000'000));
  EXPECT_EQ(counter.load(), 2'000'000u);

  const auto files = GateAllReads(PosixFileSystem(), share);
  const auto from_gated = files->OpenForStreaming(from_, TransferMode::kAuto).value();
  EXPECT_EQ(from_gated->descriptor(), -1);
  EXPECT_FALSE(target->CopyFrom(*from_gated, 0, 0, 1));
  EXPECT_FALSE(files->OpenForWriting(to_, TransferMode::kAuto));
}

TEST_F(CopyTest, ASourceThatEndsEarlyIsBadInput) {
  const auto source = Source();
  for (const auto& path : {to_, directory_ / "plain"}) {
    const auto target = path == to_ ? Target(to_) : PosixFileSystem().Create(path, 0).value();
    for (const Piece& piece :
         {Piece{0, 0, kSize + 1}, Piece{kSize, 0, 1}, Piece{2 * kSize, 0, 5}}) {
      const Status status = target->CopyFrom(*source, piece.from, piece.to, piece.length);
      ASSERT_FALSE(status) << piece.from;
      EXPECT_EQ(status.error().kind(), ErrorKind::kBadInput);
      EXPECT_EQ(status.error().problems()[0].subject, from_);
    }
  }
}

TEST_F(CopyTest, ErrorsNameTheFileThatTheyConcern) {
  test::InThread([&] {
    const auto source = Source();
    const auto target = Target(to_, TransferMode::kBuffered);
    ASSERT_TRUE(Refuse(SYS_copy_file_range, ENOSPC));
    const Status full = target->CopyFrom(*source, 0, 0, 100);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().kind(), ErrorKind::kNoSpace);
    EXPECT_EQ(full.error().problems()[0].subject, to_);
  });
  test::InThread([&] {
    const auto source = Source();
    const auto target = Target(to_);
    ASSERT_TRUE(Refuse(SYS_copy_file_range, EIO));
    ASSERT_TRUE(Refuse(SYS_pread64, EIO));
    const Status broken = target->CopyFrom(*source, 0, 0, 100);
    ASSERT_FALSE(broken);
    EXPECT_EQ(broken.error().kind(), ErrorKind::kIo);
    EXPECT_EQ(broken.error().problems()[0].subject, from_);
  });
}

TEST_F(CopyTest, TheSourceLeavesThePageCacheAsItWas) {
  if (!test::HasDisk(directory_.path())) GTEST_SKIP() << "no disk under " << directory_.path();
  if (!test::TellsWhatIsCached(from_)) GTEST_SKIP() << "not told what is cached";
  const auto source = Source();
  test::Cache(from_, 1 << 20, (1 << 20) + 100'000);
  const std::vector<bool> before = test::CachedPagesOf(from_);
  for (const auto mode : {TransferMode::kAuto, TransferMode::kBuffered}) {
    const auto target = Target(to_, mode);
    EXPECT_TRUE(target->CopyFrom(*source, 5000, 5001, 2 << 20));
    EXPECT_EQ(test::CachedPagesOf(from_), before);
    EXPECT_TRUE(target->Sync());
    EXPECT_LE(test::Count(test::CachedPagesOf(to_)), test::kPagesInHand);
  }
}

}  // namespace
}  // namespace mergepipe
