#include <gtest/gtest.h>

#include <limits>

#include "exec/counting_file_system.h"
#include "exec/exec_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

class RunSliceFailure : public ::testing::Test {
 protected:
  RunSliceFailure() : base_(Model(1)), experts_{Model(2), Model(3)} { options_.block_size = 16; }

  static TestModel Model(uint64_t seed) {
    return {MakeTensor("a", DType::kF32, {100}, seed),
            MakeTensor("b", DType::kF32, {30}, seed + 50), MakeTensor("ids", DType::kI32, {20}, 0)};
  }

  TestMerge Plan(const char* strategy = "ties") {
    WriteModels(directory_.path(), base_, experts_);
    options_.strategy.name = strategy;
    options_.top_p = 1;
    return PlanMerge(directory_.path(), experts_.size(), options_);
  }

  std::string Expert(int k) const {
    return directory_.path() + "/e" + std::to_string(k) + ".safetensors";
  }

  // What a refused merge says.
  static std::string Refusal(const TestMerge& merge, ErrorKind kind) {
    const auto bytes = RunAlone(merge);
    if (bytes) return "no error";
    EXPECT_EQ(bytes.error().kind(), kind);
    return bytes.error().ToString();
  }

  TempDirectory directory_;
  TestModel base_;
  std::vector<TestModel> experts_;
  PlanOptions options_;
};

TEST_F(RunSliceFailure, NoByteOverTheShareIsRead) {
  for (const char* strategy : {"avg", "ties"}) {
    for (const uint64_t resident : {uint64_t{0}, kMiB}) {
      options_.resident_bytes = resident;
      const TestMerge merge = Plan(strategy);
      for (const bool compare : {false, true}) {
        for (const uint64_t less : {uint64_t{0}, uint64_t{1}, uint64_t{100}}) {
          merge.Stage();
          Slice slice = merge.Slices(1)[0];
          (compare ? slice.compare_share : slice.merge_share) -= less;
          CountingFileSystem files;
          const auto report = RunSlice(files, *LocalCommunicator(), slice, kAmple);
          const uint64_t read = files.BytesRead(Expert(0)) + files.BytesRead(Expert(1));
          ASSERT_LE(read, slice.merge_share + slice.compare_share);
          ASSERT_EQ(report.has_value(), less == 0) << strategy;
          if (report) {
            EXPECT_EQ(read, merge.plan.merge_bytes + merge.plan.compare_bytes);
            EXPECT_EQ(read, report->expert_bytes_read + report->compare_bytes_read);
            EXPECT_EQ(files.BytesRead(directory_.path() + "/base.safetensors"),
                      report->base_bytes_read);
          } else {
            EXPECT_EQ(report.error().kind(), ErrorKind::kInternal);
          }
        }
      }
    }
  }
}

TEST_F(RunSliceFailure, AChangedInputIsNamed) {
  for (const std::string& path : {directory_.path() + "/base.safetensors", Expert(1)}) {
    const TestMerge merge = Plan();
    const auto before = std::filesystem::last_write_time(path);
    std::filesystem::last_write_time(path, before + std::chrono::nanoseconds(1000));
    EXPECT_TRUE(Says(Refusal(merge, ErrorKind::kBadInput), path + ": is not the file"));
    std::filesystem::last_write_time(path, before);
    EXPECT_EQ(Refusal(merge, ErrorKind::kBadInput), "no error");
    std::filesystem::resize_file(path, std::filesystem::file_size(path) + 1);
    std::filesystem::last_write_time(path, before);
    EXPECT_TRUE(Says(Refusal(merge, ErrorKind::kBadInput), path + ": is not the file"));
    std::filesystem::remove(path);
    EXPECT_TRUE(Says(Refusal(merge, ErrorKind::kBadInput), path));
  }
}

TEST_F(RunSliceFailure, AnExpertOfWhichNothingIsReadMayBeGone) {
  TestMerge merge = Plan("avg");
  for (PlannedTensor& tensor : merge.plan.tensors) {
    tensor.selected[1] = BlockSet(tensor.selected[1].size());
    tensor.compare = false;
  }
  std::filesystem::remove(Expert(1));
  EXPECT_TRUE(RunAlone(merge).has_value());
  std::filesystem::remove(Expert(0));
  EXPECT_TRUE(Says(Refusal(merge, ErrorKind::kBadInput), Expert(0)));
}

TEST_F(RunSliceFailure, AMissingOutputFileIsNamed) {
  const TestMerge merge = Plan();
  merge.Stage();
  std::filesystem::remove(merge.OutputPath());
  const auto report = RunSlice(PosixFileSystem(), *LocalCommunicator(), merge.Slices(1)[0], kAmple);
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().kind(), ErrorKind::kIo);
  EXPECT_TRUE(Says(report.error().ToString(), merge.OutputPath()));
}

TEST_F(RunSliceFailure, AnUnknownStrategyIsRefused) {
  const TestMerge merge = Plan();
  Slice slice = merge.Slices(1)[0];
  slice.strategy.name = "slerp";
  const auto report = RunSlice(PosixFileSystem(), *LocalCommunicator(), slice, kAmple);
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().kind(), ErrorKind::kUsage);
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

TEST_F(RunSliceFailure, NonFiniteInputsAreCountedByTensor) {
  base_[0].Set(3, kNan);
  base_[0].Set(99, -kInf);
  base_[0].Set(98, kInf);
  experts_[1][1].Set(0, kNan);
  experts_[1][1].Set(29, kNan);
  for (const char* strategy : {"avg", "ties", "dare"}) {
    options_.allow_nonfinite = false;
    TestMerge merge = Plan(strategy);
    EXPECT_TRUE(Says(Refusal(merge, ErrorKind::kBadInput),
                     "base: tensor 'a': has 1 NaN and 2 infinite values"));
    options_.allow_nonfinite = true;
    merge = Plan(strategy);
    SliceReport report;
    const auto bytes = RunAlone(merge, kAmple, &report);
    ASSERT_TRUE(bytes.has_value()) << bytes.error().ToString();
    EXPECT_EQ(report.parts[0].inputs, (std::vector<NonFiniteCount>{{1, 2}, {}, {}}));
    EXPECT_EQ(report.parts[1].inputs, (std::vector<NonFiniteCount>{{}, {}, {2, 0}}));
    EXPECT_EQ(report.parts[0].made, NonFiniteCount());
  }
}

TEST_F(RunSliceFailure, ANonFiniteExpertIsNamed) {
  experts_[1][1].Set(0, kNan);
  experts_[1][1].Set(29, kInf);
  const std::string text = Refusal(Plan("avg"), ErrorKind::kBadInput);
  EXPECT_TRUE(Says(text, "expert 'e1': tensor 'b': has 1 NaN and 1 infinite values"));
  EXPECT_TRUE(Says(text, "--nonfinite allow"));
  // In a block that is not read it does no harm.
  TestMerge merge = Plan("avg");
  merge.plan.tensors[1].selected[1] = BlockSet(2);
  EXPECT_TRUE(RunAlone(merge).has_value());
}

TEST_F(RunSliceFailure, OverflowOfTheOutputTypeIsRefused) {
  base_[1].Set(5, 60'000);
  for (TestModel& expert : experts_) expert[1].Set(5, 70'000);
  base_[0].Set(7, 1e9f);  // too large already, without a delta
  for (TestModel& expert : experts_) expert[0].Set(7, 1e9f);
  options_.out_dtype = DType::kF16;
  EXPECT_TRUE(Says(Refusal(Plan("avg"), ErrorKind::kBadInput),
                   "output: tensor 'a': would have 0 NaN and 1 infinite values where the base is "
                   "finite (dtype F16)"));
  options_.allow_nonfinite = true;
  SliceReport report;
  const TestMerge merge = Plan("avg");
  const auto bytes = RunAlone(merge, kAmple, &report);
  ASSERT_TRUE(bytes.has_value()) << bytes.error().ToString();
  EXPECT_EQ(report.parts[0].made, (NonFiniteCount{0, 1}));
  EXPECT_EQ(report.parts[1].made, (NonFiniteCount{0, 1}));
  EXPECT_EQ(Decode(DType::kF16, bytes->data() + merge.layout.tensors[1].offset + 2 * 5), kInf);
}

}  // namespace
}  // namespace mergepipe
