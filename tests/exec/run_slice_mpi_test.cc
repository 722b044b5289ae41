#include <gtest/gtest.h>

#include <chrono>
#include <functional>

#include "exec/counting_file_system.h"
#include "exec/exec_fixture.h"
#include "exec/mpi_fixture.h"

/// \file
/// The same merge on several ranks, and what becomes of the others when one fails. All ranks run
/// all cases; checks that end a case early stand only after its last collective call.
namespace mergepipe {
namespace {

using namespace test;

using Model = std::function<TestModel(uint64_t seed)>;

// One tensor of nearly all the bytes, so that every rank makes a part of it, between two small
// ones.
TestModel OneLargeTensor(uint64_t seed) {
  return {MakeTensor("first", DType::kBF16, {50}, seed),
          MakeTensor("large", DType::kBF16, {8001}, seed + 1),
          MakeTensor("last", DType::kBF16, {50}, seed + 2)};
}

// Several ranks share several tensors, each with the next one.
TestModel FiveTensors(uint64_t seed) {
  TestModel model;
  for (uint64_t t = 0; t < 5; ++t)
    model.push_back(MakeTensor("t" + std::to_string(t), DType::kF32, {1999}, seed + t));
  return model;
}

// Every rank makes tensors of its own, for 1, 2 and 4 ranks.
TestModel FourTensors(uint64_t seed) {
  TestModel model;
  for (uint64_t t = 0; t < 4; ++t)
    model.push_back(MakeTensor("t" + std::to_string(t), DType::kF32, {2000}, seed + t));
  return model;
}

TestMerge Prepare(const std::string& directory, const Model& model, const char* strategy,
                  uint64_t resident) {
  if (communicator->is_root()) WriteModels(directory, model(1), {model(11), model(21), model(31)});
  SharedDirectory::Wait();
  PlanOptions options;
  options.strategy.name = strategy;
  options.strategy.density = 0.3;
  options.block_size = 64;
  options.top_p = 0.8;
  options.resident_bytes = resident;
  TestMerge merge = PlanMerge(directory, 3, options);
  if (communicator->is_root()) merge.Stage();
  SharedDirectory::Wait();
  return merge;
}

Slice MySlice(const TestMerge& merge) {
  return merge.Slices(communicator->size())[static_cast<size_t>(communicator->rank().value)];
}

void ExpectSameBytes(const Model& model, const char* strategy, uint64_t resident) {
  const SharedDirectory directory;
  const TestMerge merge = Prepare(directory.path(), model, strategy, resident);
  const Slice slice = MySlice(merge);
  const auto report = RunSlice(PosixFileSystem(), *communicator, slice, kAmple);
  EXPECT_TRUE(report.has_value()) << report.error().ToString();
  if (report) {
    EXPECT_EQ(report->expert_bytes_read, slice.merge_share);
  }
  SharedDirectory::Wait();
  if (!communicator->is_root()) return;
  const std::string together = ReadBytes(merge.OutputPath());
  const auto alone = RunAlone(merge);
  ASSERT_TRUE(alone.has_value()) << alone.error().ToString();
  EXPECT_TRUE(together == *alone) << strategy;
}

Slice MySlice(const std::vector<Slice>& slices) {
  return slices[static_cast<size_t>(communicator->rank().value)];
}

// The sparse output is the one of one rank, and the full output made from it that of the merge.
void ExpectSameSparseBytes(const Model& model, const char* strategy) {
  const SharedDirectory directory;
  const TestMerge merge = Prepare(directory.path(), model, strategy, 0);
  if (communicator->is_root()) merge.Stage(OutputForm::kSparse);
  SharedDirectory::Wait();
  const auto run = [](const std::vector<Slice>& slices) {
    const auto report = RunSlice(PosixFileSystem(), *communicator, MySlice(slices), kAmple);
    EXPECT_TRUE(report.has_value()) << report.error().ToString();
    SharedDirectory::Wait();
  };
  run(merge.Slices(communicator->size(), OutputForm::kSparse));
  const std::string sparse = merge.OutputPath(OutputForm::kSparse);
  const std::string together = ReadBytes(sparse);
  SharedDirectory::Wait();
  run(merge.MaterializeSlices(communicator->size(), sparse));
  if (!communicator->is_root()) return;
  const std::string full = ReadBytes(merge.OutputPath());
  const auto alone = RunAlone(merge, kAmple, nullptr, OutputForm::kSparse);
  ASSERT_TRUE(alone.has_value()) << alone.error().ToString();
  EXPECT_TRUE(together == *alone) << strategy;
  const auto merged = RunAlone(merge);
  ASSERT_TRUE(merged.has_value()) << merged.error().ToString();
  EXPECT_TRUE(full == *merged) << strategy;
}

constexpr uint64_t kAllResident = uint64_t{1} << 30;

TEST(RunSliceMpi, ATensorSharedByAllRanksGivesTheSameBytes) {
  const SharedDirectory directory;
  const TestMerge merge = Prepare(directory.path(), OneLargeTensor, "ties", kAllResident);
  for (const TensorPart& part : MySlice(merge).parts) {
    if (part.name != "large") continue;
    EXPECT_EQ(part.first_rank, 0);
    EXPECT_EQ(part.last_rank, communicator->size() - 1);
  }
  for (const char* strategy : {"avg", "ties", "dare"}) {
    for (const uint64_t resident : {uint64_t{0}, kAllResident})
      ExpectSameBytes(OneLargeTensor, strategy, resident);
  }
}

TEST(RunSliceMpi, TensorsSharedByNeighboursGiveTheSameBytes) {
  for (const char* strategy : {"avg", "ties"}) {
    for (const uint64_t resident : {uint64_t{0}, kAllResident})
      ExpectSameBytes(FiveTensors, strategy, resident);
  }
}

TEST(RunSliceMpi, SparseOutputsGiveTheSameBytes) {
  for (const Model& model : {Model(OneLargeTensor), Model(FiveTensors), Model(FourTensors)}) {
    for (const char* strategy : {"avg", "ties", "dare"}) ExpectSameSparseBytes(model, strategy);
  }
}

// `damage` hits the last rank's slice; all ranks must end soon, with its error.
void ExpectAllFail(const Model& model, const char* strategy, uint64_t resident,
                   const std::function<void(Slice&)>& damage, ErrorKind kind,
                   const std::string& says) {
  const SharedDirectory directory;
  const TestMerge merge = Prepare(directory.path(), model, strategy, resident);
  Slice slice = MySlice(merge);
  if (IsLast()) damage(slice);
  const auto start = std::chrono::steady_clock::now();
  const auto report = RunSlice(PosixFileSystem(), *communicator, slice, kAmple);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 10);
  ExpectFailureOfTheLast(report, kind, says);
}

void LoseExpert(Slice& slice) { slice.expert_files[1][0].path += ".gone"; }

// Where only rank 0 sees the output.
class Blind final : public CountingFileSystem {
 public:
  explicit Blind(std::string output) : output_(std::move(output)) {}

  Result<bool> Exists(const std::string& path) override {
    if (Hides(path)) return false;
    return CountingFileSystem::Exists(path);
  }
  Result<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) override {
    if (Hides(path)) return Fail(ErrorKind::kIo, path, "is not here");
    return CountingFileSystem::OpenForWriting(path);
  }

 private:
  bool Hides(const std::string& path) const { return !communicator->is_root() && path == output_; }

  std::string output_;
};

TEST(RunSliceMpi, RankZeroWritesForAll) {
  for (const char* strategy : {"ties", "avg"}) {
    const SharedDirectory directory;
    const TestMerge merge = Prepare(directory.path(), FiveTensors, strategy, kAllResident);
    Slice slice = MySlice(merge);
    slice.gather_to_root = true;
    Blind files(merge.OutputPath());
    const auto report = RunSlice(files, *communicator, slice, kAmple);
    EXPECT_TRUE(report.has_value()) << report.error().ToString();
    SharedDirectory::Wait();
    if (!communicator->is_root()) continue;
    const std::string together = ReadBytes(merge.OutputPath());
    const auto alone = RunAlone(merge);
    EXPECT_TRUE(alone.has_value());
    EXPECT_TRUE(alone && together == *alone) << strategy;
  }
}

// A full disk of rank 0 while it writes for another one.
TEST(RunSliceMpi, AFailureToWriteForOthersEndsAll) {
  const SharedDirectory directory;
  const TestMerge merge = Prepare(directory.path(), FourTensors, "avg", kAllResident);
  Slice slice = MySlice(merge);
  slice.gather_to_root = true;
  if (communicator->is_root()) slice.output_files = {"/dev/null/none"};
  const auto report = RunSlice(PosixFileSystem(), *communicator, slice, kAmple);
  EXPECT_FALSE(report.has_value());
  if (!report) {
    EXPECT_TRUE(Says(report.error().ToString(), "/dev/null/none"));
  }
}

TEST(RunSliceMpi, AMissingFileOnOneRankEndsAll) {
  for (const Model& model : {Model(OneLargeTensor), Model(FiveTensors), Model(FourTensors)}) {
    for (const char* strategy : {"avg", "ties"}) {
      ExpectAllFail(model, strategy, kAllResident, LoseExpert, ErrorKind::kBadInput,
                    "e1.safetensors.gone");
    }
  }
}

// The share runs out in the first observation, in the second, and in the merge.
TEST(RunSliceMpi, AFailureInAnyRoundEndsAll) {
  for (const Model& model : {Model(OneLargeTensor), Model(FiveTensors)}) {
    for (const double part : {0.1, 0.5, 0.999}) {
      const auto cut = [part](Slice& slice) {
        slice.merge_share = static_cast<uint64_t>(part * static_cast<double>(slice.merge_share));
      };
      ExpectAllFail(model, "ties", 0, cut, ErrorKind::kInternal, ".safetensors");
    }
  }
}

TEST(RunSliceMpi, TooLittleMemoryOnOneRankEndsAll) {
  const SharedDirectory directory;
  const TestMerge merge = Prepare(directory.path(), OneLargeTensor, "ties", kAllResident);
  const ExecLimits limits = IsLast() ? ExecLimits{1, kMiB} : kAmple;
  const auto report = RunSlice(PosixFileSystem(), *communicator, MySlice(merge), limits);
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().kind(), ErrorKind::kNoSpace);
}

// An error is forgotten: the next merge goes well.
TEST(RunSliceMpi, AMergeAfterAFailureSucceeds) { ExpectSameBytes(FiveTensors, "ties", 0); }

}  // namespace
}  // namespace mergepipe

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  auto session = mergepipe::CommSession::Start();
  if (!session) return 1;
  mergepipe::test::communicator = &(*session)->communicator();
  return RUN_ALL_TESTS();
}
