#include <gtest/gtest.h>

#include <atomic>
#include <limits>

#include "exec/counting_file_system.h"
#include "exec/scan_fixture.h"
#include "support/error_of.h"
#include "support/fault_file_system.h"
#include "support/memory_file_system.h"

namespace mergepipe {
namespace {

using namespace test;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

class ScanFailure : public ::testing::Test {
 protected:
  ScanFailure() {
    scan_.base = Model(1);
    scan_.experts = {Model(2), Model(3)};
    scan_.WriteAll();
  }

  static TestModel Model(uint64_t seed) {
    return {MakeTensor("a", DType::kF32, {300}, seed),
            MakeTensor("b", DType::kF32, {130}, seed + 50)};
  }

  Result<ScanReport> Run(const ScanSlice& slice) {
    return RunScan(disk_, *LocalCommunicator(), slice, {.threads = 3, .memory_bytes = 1u << 30});
  }
  Result<ScanReport> Run() { return Run(scan_.Slices(1)[0]); }

  MemoryFileSystem disk_;
  TestScan scan_{.files = disk_, .directory = "", .base = {}, .experts = {}};
};

TEST_F(ScanFailure, NoByteOverTheShareIsRead) {
  for (const uint64_t less : {1u, 100u, 2000u}) {
    ScanSlice slice = scan_.Slices(1)[0];
    slice.expert_share -= less;
    CountingFileSystem counting(disk_);
    const auto report = RunScan(counting, *LocalCommunicator(), slice, kAmple);
    EXPECT_EQ(ErrorOf(report).kind(), ErrorKind::kInternal);
    EXPECT_TRUE(Says(ErrorOf(report).ToString(), "budget share"));
    EXPECT_LE(counting.BytesRead(scan_.Path("e0")) + counting.BytesRead(scan_.Path("e1")),
              slice.expert_share);
  }
}

TEST_F(ScanFailure, AChangedInputIsNamed) {
  for (const char* id : {"base", "e1"}) {
    const ScanSlice slice = scan_.Slices(1)[0];
    scan_.WriteAll();  // the same bytes at another time
    ScanSlice others = scan_.Slices(1)[0];
    (id == std::string("base") ? others.base_files : others.expert_files[1]) =
        id == std::string("base") ? slice.base_files : slice.expert_files[1];
    const Error error = ErrorOf(Run(others));
    EXPECT_EQ(error.kind(), ErrorKind::kBadInput);
    EXPECT_TRUE(Says(error.ToString(), scan_.Path(id) + ": is not the file"));
  }
}

TEST_F(ScanFailure, AMissingInputIsNamed) {
  const ScanSlice slice = scan_.Slices(1)[0];
  ASSERT_TRUE(disk_.Remove(scan_.Path("e0")).has_value());
  const Error error = ErrorOf(Run(slice));
  EXPECT_EQ(error.kind(), ErrorKind::kBadInput);
  EXPECT_TRUE(Says(error.ToString(), scan_.Path("e0")));
}

// A step that ends in time is finished; a long one is left.
TEST_F(ScanFailure, ASignalLeavesItTimeToFinish) {
  const std::atomic<bool> stop{true};
  ExecLimits limits = kAmple;
  limits.stop = &stop;
  const ScanSlice slice = scan_.Slices(1)[0];
  EXPECT_TRUE(RunScan(disk_, *LocalCommunicator(), slice, limits).has_value());
  limits.stop_grace = std::chrono::seconds(0);
  const auto left = RunScan(disk_, *LocalCommunicator(), slice, limits);
  EXPECT_EQ(ErrorOf(left).kind(), ErrorKind::kInterrupted);
}

// Cut after it was opened, say: its size was right then.
TEST_F(ScanFailure, AShortFileIsNamed) {
  for (const char* id : {"base", "e1"}) {
    scan_.WriteAll();
    ScanSlice slice = scan_.Slices(1)[0];
    SourceFile& file = id == std::string("base") ? slice.base_files[0] : slice.expert_files[1][0];
    std::string text = *ReadSmallFile(disk_, file.path, kMiB);
    text.pop_back();
    ASSERT_TRUE(disk_.Remove(file.path).has_value());
    ASSERT_TRUE(WriteNewFile(disk_, file.path, text).has_value());
    const FileInfo info = *disk_.Stat(file.path);
    file.size = info.size;
    file.mtime_ns = info.mtime_ns;
    const Error error = ErrorOf(Run(slice));
    EXPECT_EQ(error.kind(), ErrorKind::kBadInput);
    EXPECT_TRUE(Says(error.ToString(), file.path + ": ends at byte"));
  }
}

// Every single call to the file system may fail, and says so.
TEST_F(ScanFailure, NoFailedReadIsOverlooked) {
  const ScanSlice slice = scan_.Slices(1)[0];
  FaultFileSystem counting(disk_);
  ASSERT_TRUE(RunScan(counting, *LocalCommunicator(), slice, kAmple).has_value());
  ASSERT_GE(counting.operations(), 12u);  // Stat, open, two reads of each file
  for (uint64_t operation = 0; operation < counting.operations(); ++operation) {
    for (const int threads : {1, 3}) {
      FaultFileSystem faulty(disk_);
      const Error fault(ErrorKind::kIo, "disk", "is on fire");
      faulty.FailAt(operation, fault, FaultFileSystem::Repeat::kOnce);
      const auto report =
          RunScan(faulty, *LocalCommunicator(), slice, {threads, kAmple.memory_bytes});
      ASSERT_EQ(ErrorOf(report), fault) << operation;
    }
  }
}

TEST_F(ScanFailure, NonFiniteInputsAreListed) {
  scan_.base[0].Set(3, kNan);
  scan_.base[0].Set(299, -kInf);
  scan_.experts[1][0].Set(70, kInf);
  scan_.experts[1][1].Set(0, kNan);
  scan_.experts[1][1].Set(129, kNan);
  scan_.WriteAll();
  const Error error = ErrorOf(Run());
  EXPECT_EQ(error.kind(), ErrorKind::kBadInput);
  const std::string remedy = "; repair the checkpoint, or pass --nonfinite allow";
  EXPECT_EQ(error.ToString(),
            "base: tensor 'a': has 1 NaN and 1 infinite values" + remedy +
                "\nexpert 'e1': tensor 'a': has 0 NaN and 1 infinite values" + remedy +
                "\nexpert 'e1': tensor 'b': has 2 NaN and 0 infinite values" + remedy);
}

TEST_F(ScanFailure, NonFiniteInputsMayBeAllowed) {
  scan_.base[0].Set(3, kNan);
  scan_.experts[1][1].Set(64, kInf);
  scan_.allow_nonfinite = true;
  scan_.WriteAll();
  const auto report = Run();
  ASSERT_TRUE(report.has_value()) << report.error().ToString();
  EXPECT_EQ(report->parts[0].experts[0][0].max_abs, kInf);
  EXPECT_EQ(report->parts[0].experts[1][0].max_abs, kInf);
  EXPECT_LT(report->parts[0].experts[0][1].max_abs, kInf);
  EXPECT_EQ(report->parts[1].experts[1][1].max_abs, kInf);
  EXPECT_TRUE(std::isfinite(report->parts[0].base[0].sum_squares));
  EXPECT_TRUE(std::isfinite(report->parts[1].experts[1][1].sum_squares));
}

// In what is not read it does no harm.
TEST_F(ScanFailure, NonFiniteValuesBesideTheSampleAreNotSeen) {
  scan_.base = {MakeTensor("a", DType::kF32, {10'000}, 1)};
  scan_.experts = {{MakeTensor("a", DType::kF32, {10'000}, 2)}};
  scan_.block_size = 10'000;
  scan_.stride = 1;
  scan_.experts[0][0].Set(2951, kNan);
  scan_.experts[0][0].Set(7048, kNan);
  scan_.WriteAll();
  EXPECT_TRUE(Run().has_value());
  scan_.experts[0][0].Set(7047, kNan);
  scan_.WriteAll();
  EXPECT_TRUE(Says(ErrorOf(Run()).ToString(), "expert 'e0': tensor 'a': has 1 NaN"));
}

}  // namespace
}  // namespace mergepipe
