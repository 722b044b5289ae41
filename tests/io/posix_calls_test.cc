// Signals that end a system call early, and transfers of a part: what a system call may do and
// seldom does.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "io/posix_calls.h"
#include "support/error_of.h"
#include "support/temporary_directory.h"

namespace mergepipe {
namespace {

using test::PlanOf;

class PosixCalls : public testing::Test {
 protected:
  PosixCalls() {
    for (size_t i = 0; i < 100'003; ++i) text_ += static_cast<char>('a' + i % 23);
    test::ResetPlans();
  }
  ~PosixCalls() override { test::ResetPlans(); }

  void ExpectWritten(const std::string& name) {
    test::ResetPlans();
    EXPECT_EQ(ReadSmallFile(files_, directory_ / name, text_.size()).value(), text_);
  }

  // What was interrupted so often, as if it had not been.
  static void Interrupt(const std::string& function, int times = 3) {
    PlanOf(function).error = EINTR;
    PlanOf(function).failures = times;
  }

  FileSystem& files_ = PosixFileSystem();
  TemporaryDirectory directory_;
  std::string text_;
};

TEST_F(PosixCalls, AWriteGoesOnAfterSignals) {
  for (const char* function : {"open", "fallocate", "pwrite", "fsync"}) {
    test::ResetPlans();
    Interrupt(function);
    EXPECT_TRUE(WriteNewFile(files_, directory_ / function, text_)) << function;
    EXPECT_GE(PlanOf(function).calls, 4) << function;
    ExpectWritten(function);
  }
}

// The descriptor is gone then, and may be another thread's already.
TEST_F(PosixCalls, ACloseIsNotRepeated) {
  Interrupt("close", 1);
  EXPECT_TRUE(WriteNewFile(files_, directory_ / "f", text_));
  EXPECT_EQ(PlanOf("close").calls, 1);
  ExpectWritten("f");
}

TEST_F(PosixCalls, WithoutAllocationTheSizeIsSetDespiteSignals) {
  PlanOf("fallocate").error = EOPNOTSUPP;
  PlanOf("fallocate").failures = 1;
  Interrupt("ftruncate");
  const auto file = files_.Create(directory_ / "f", 5000);
  ASSERT_TRUE(file.has_value()) << ErrorOf(file).ToString();
  EXPECT_EQ(PlanOf("ftruncate").calls, 4);
  EXPECT_EQ(files_.Stat(directory_ / "f")->size, 5000u);
}

TEST_F(PosixCalls, ADirectoryIsSyncedDespiteSignals) {
  Interrupt("fsync");
  EXPECT_TRUE(files_.SyncDirectory(directory_.path()));
  EXPECT_EQ(PlanOf("fsync").calls, 4);
}

// Only a signal is: the pages that could not be written may be gone from memory.
TEST_F(PosixCalls, AFailedSyncIsFinal) {
  for (const TransferMode mode : {TransferMode::kBuffered, TransferMode::kDirect}) {
    const std::string path = directory_ / ("f" + std::to_string(static_cast<int>(mode)));
    ASSERT_TRUE(WriteNewFile(files_, path, text_));
    const auto file = files_.OpenForWriting(path, mode).value();
    test::ResetPlans();
    PlanOf("fsync").error = EIO;
    PlanOf("fsync").failures = 1;
    EXPECT_EQ(ErrorOf(file->Sync()), SystemError(EIO, path, "sync"));
    EXPECT_EQ(PlanOf("fsync").calls, 1);
  }
}

TEST_F(PosixCalls, WritesOfAPartAreCompleted) {
  PlanOf("pwrite").most = 997;
  Interrupt("pwrite", 2);
  ASSERT_TRUE(WriteNewFile(files_, directory_ / "f", text_));
  EXPECT_GT(PlanOf("pwrite").calls, 100);
  ExpectWritten("f");
}

TEST_F(PosixCalls, ReadsOfAPartAreCompleted) {
  ASSERT_TRUE(WriteNewFile(files_, directory_ / "f", text_));
  PlanOf("pread").most = 997;
  Interrupt("pread", 2);
  EXPECT_EQ(ReadSmallFile(files_, directory_ / "f", text_.size()).value(), text_);
  EXPECT_GT(PlanOf("pread").calls, 100);
}

// In every way to transfer, whole pages and torn ones.
TEST_F(PosixCalls, StreamsOfAPartAreCompleted) {
  for (const TransferMode mode : {TransferMode::kBuffered, TransferMode::kDirect}) {
    for (const size_t most : {size_t{4096}, size_t{8192}, size_t{5000}}) {
      SCOPED_TRACE(most);
      const std::string name = std::to_string(static_cast<int>(mode)) + "-" + std::to_string(most);
      test::ResetPlans();
      ASSERT_TRUE(files_.Create(directory_ / name, text_.size()).has_value());
      const auto out = files_.OpenForWriting(directory_ / name, mode).value();
      const std::unique_ptr<std::byte, void (*)(void*)> memory(
          static_cast<std::byte*>(std::aligned_alloc(kDirectAlignment, 26 * kDirectAlignment)),
          std::free);
      const std::span bytes(memory.get(), text_.size());
      std::ranges::copy(std::as_bytes(std::span(text_)), bytes.begin());
      PlanOf("pwrite").most = most;
      Interrupt("pwrite", 1);
      ASSERT_TRUE(out->WriteAt(0, bytes));
      ASSERT_TRUE(out->Sync());
      EXPECT_GT(PlanOf("pwrite").calls, 10);
      const auto in = files_.OpenForStreaming(directory_ / name, mode).value();
      std::ranges::fill(bytes, std::byte{0});
      PlanOf("pread").most = most;
      Interrupt("pread", 1);
      ASSERT_TRUE(in->ReadAt(0, bytes));
      EXPECT_GT(PlanOf("pread").calls, 10);
      EXPECT_TRUE(std::ranges::equal(bytes, std::as_bytes(std::span(text_))));
      ExpectWritten(name);
    }
  }
}

TEST_F(PosixCalls, CopiesOfAPartAreCompleted) {
  ASSERT_TRUE(WriteNewFile(files_, directory_ / "from", text_));
  ASSERT_TRUE(files_.Create(directory_ / "to", text_.size()).has_value());
  const auto from = files_.OpenForReading(directory_ / "from").value();
  const auto to = files_.OpenForWriting(directory_ / "to", TransferMode::kBuffered).value();
  PlanOf("copy_file_range").most = 997;
  Interrupt("copy_file_range", 2);
  ASSERT_TRUE(to->CopyFrom(*from, 0, 0, text_.size()));
  EXPECT_GT(PlanOf("copy_file_range").calls, 100);
  ExpectWritten("to");
}

// Not for ever, as a file system that lies could have it.
TEST_F(PosixCalls, AWriteOfNothingIsAnError) {
  PlanOf("pwrite").most = 0;
  EXPECT_EQ(ErrorOf(WriteNewFile(files_, directory_ / "f", text_)),
            SystemError(EIO, directory_ / "f", "write"));
}

TEST_F(PosixCalls, ALockThatCannotBeLookedUpIsAnError) {
  PlanOf("stat").error = EIO;
  PlanOf("stat").failures = 1000;
  EXPECT_EQ(ErrorOf(files_.Lock(directory_ / "lock")).kind(), ErrorKind::kIo);
  EXPECT_EQ(PlanOf("stat").calls, 1);
}

// A list without it would make a checkpoint without it.
TEST_F(PosixCalls, ANameThatCannotBeLookedUpIsNotOverlooked) {
  ASSERT_TRUE(WriteNewFile(files_, directory_ / "f", text_));
  PlanOf("stat").error = EIO;
  PlanOf("stat").failures = 1;
  EXPECT_EQ(ErrorOf(files_.List(directory_.path())), SystemError(EIO, directory_ / "f", "look up"));
}

}  // namespace
}  // namespace mergepipe
