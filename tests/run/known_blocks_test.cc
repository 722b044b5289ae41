#include <gtest/gtest.h>

#include "exec/exec_fixture.h"
#include "run/known_blocks.h"
#include "run/slices.h"

/// \file
/// Hashes that statistics know, on their way into slices, and what comes of them there.
namespace mergepipe {
namespace {

using namespace test;

constexpr uint64_t kBlock = 64;

std::vector<Hash128> BlockHashes(const TestTensor& tensor) {
  std::vector<Hash128> hashes;
  const uint64_t size = kBlock * DTypeSize(tensor.dtype);
  for (uint64_t at = 0; at < tensor.bytes.size(); at += size)
    hashes.push_back(HashText(std::string_view(tensor.bytes).substr(at, size)));
  return hashes;
}

// Statistics of models that are in memory; remembers what it was asked.
class FakeStatistics final : public StatisticsSource {
 public:
  StatisticsKind KindOf(uint32_t expert) const override { return kinds[expert]; }

  Result<std::vector<BlockStatistics>> OfExpert(uint32_t expert, uint32_t tensor) override {
    asked.push_back(tensor);
    if (fails) return Fail(ErrorKind::kIo, "catalog", "cannot be read");
    std::vector<BlockStatistics> blocks;
    for (const Hash128& hash : BlockHashes(experts[expert][tensor]))
      blocks.emplace_back().hash = hash;
    if (loses_one) blocks.pop_back();
    return blocks;
  }

  Result<std::vector<BaseBlockStatistics>> OfBase(uint32_t tensor) override {
    asked_of_base.push_back(tensor);
    std::vector<BaseBlockStatistics> blocks;
    if (!knows_base) return blocks;
    for (const Hash128& hash : BlockHashes(base[tensor])) blocks.emplace_back().hash = hash;
    return blocks;
  }

  TestModel base;
  std::vector<TestModel> experts;
  std::vector<StatisticsKind> kinds = {StatisticsKind::kExact, StatisticsKind::kExact};
  bool knows_base = true;
  bool fails = false;
  bool loses_one = false;
  std::vector<uint32_t> asked;
  std::vector<uint32_t> asked_of_base;
};

class KnownBlocksTest : public ::testing::Test {
 protected:
  KnownBlocksTest() {
    statistics_.base = Model(1);
    statistics_.experts = {Model(10), Model(20)};
    WriteModels(directory_.path(), statistics_.base, statistics_.experts);
    Plan();
  }

  static TestModel Model(uint64_t seed) {
    return {MakeTensor("a", DType::kBF16, {3000}, seed), MakeTensor("ids", DType::kI64, {9}, 0),
            MakeTensor("b", DType::kF32, {3000}, seed + 1)};
  }

  // The files as they are now; sizes and times are those of their headers.
  void Plan() {
    PlanOptions options;
    options.strategy.name = "avg";
    options.block_size = kBlock;
    options.top_p = 0.5;
    merge_ = PlanMerge(directory_.path(), 2, options);
    inputs_ = {};
    inputs_.base.record = merge_.base;
    for (const ModelRecord& expert : merge_.experts) inputs_.experts.push_back({expert, false});
  }

  Result<std::vector<Slice>> Slices(int ranks) {
    const SliceContext context{.inputs = inputs_,
                               .layout = merge_.layout,
                               .staging = merge_.staging,
                               .form = OutputForm::kFull,
                               .sparse = nullptr,
                               .statistics = &statistics_};
    MERGEPIPE_ASSIGN_OR_RETURN(const auto texts, MakeSlices(merge_.plan, context, ranks));
    std::vector<Slice> slices;
    for (const std::string& text : texts) {
      MERGEPIPE_ASSIGN_OR_RETURN(Slice slice, ParseSlice(text));
      slices.push_back(std::move(slice));
    }
    return slices;
  }

  void ChangeInPlace(const std::string& id, const TensorInfo& tensor, uint64_t block) {
    std::fstream file(directory_.path() + "/" + id + ".safetensors",
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(tensor.offset + block * kBlock * 2));
    file.write("\x01\x02", 2);
  }

  Result<SliceReport> Run() {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto slices, Slices(1));
    merge_.Stage();
    return RunSlice(PosixFileSystem(), *LocalCommunicator(), slices[0], kAmple);
  }

  TempDirectory directory_;
  FakeStatistics statistics_;
  TestMerge merge_;
  ResolvedInputs inputs_;
};

TEST_F(KnownBlocksTest, EveryPartHasItsHashes) {
  for (const int ranks : {1, 3}) {
    const auto slices = Slices(ranks);
    ASSERT_TRUE(slices.has_value()) << slices.error().ToString();
    for (const Slice& slice : *slices) {
      for (const TensorPart& part : slice.parts) {
        if (part.name == "ids") {
          EXPECT_TRUE(part.known_base_hashes.empty() && part.known_hashes.empty());
          continue;
        }
        const auto base = BlockHashes(statistics_.base[part.tensor]);
        ASSERT_EQ(part.known_base_hashes.size(), part.end - part.begin);
        for (uint64_t b = part.begin; b < part.end; ++b)
          EXPECT_EQ(part.known_base_hashes[b - part.begin], base[b]);
        for (size_t k = 0; k < 2; ++k) {
          const auto all = BlockHashes(statistics_.experts[k][part.tensor]);
          std::vector<Hash128> selected;
          for (uint64_t b = part.begin; b < part.end; ++b) {
            if (part.selected[k].Contains(BlockIndex(b))) selected.push_back(all[b]);
          }
          EXPECT_EQ(part.known_hashes[k], selected);
        }
      }
    }
  }
}

// The catalog reads its statistics from the front.
TEST_F(KnownBlocksTest, EachTensorIsAskedForOnceInOrder) {
  ASSERT_TRUE(Slices(5).has_value());  // "a" and "b" are shared by several ranks
  EXPECT_EQ(statistics_.asked, (std::vector<uint32_t>{0, 0, 2, 2}));
  EXPECT_EQ(statistics_.asked_of_base, (std::vector<uint32_t>{0, 2}));
}

TEST_F(KnownBlocksTest, OnlyExactStatisticsHaveHashesOfBlocks) {
  statistics_.kinds = {StatisticsKind::kProbe, StatisticsKind::kNone};
  statistics_.knows_base = false;
  const auto slices = Slices(1);
  ASSERT_TRUE(slices.has_value());
  EXPECT_TRUE(statistics_.asked.empty());
  for (const TensorPart& part : (*slices)[0].parts) {
    EXPECT_TRUE(part.known_base_hashes.empty());
    for (const auto& known : part.known_hashes) EXPECT_TRUE(known.empty());
  }
}

TEST_F(KnownBlocksTest, ErrorsComeOut) {
  statistics_.fails = true;
  const auto failed = Slices(2);
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().kind(), ErrorKind::kIo);
  statistics_.fails = false;
  statistics_.loses_one = true;
  const auto short_of_one = Slices(2);
  ASSERT_FALSE(short_of_one.has_value());
  EXPECT_EQ(short_of_one.error().kind(), ErrorKind::kInternal);
}

TEST_F(KnownBlocksTest, AnInputThatChangedSinceIsNotMerged) {
  EXPECT_TRUE(Run().has_value());
  const BlockSet selected = merge_.plan.tensors[0].selected[1];
  uint64_t block = 0;
  while (!selected.Contains(BlockIndex(block))) ++block;
  ChangeInPlace("e1", TensorNamed(merge_.experts[1], "a"), block);
  Plan();
  ASSERT_EQ(merge_.plan.tensors[0].selected[1], selected);
  const auto report = Run();
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().kind(), ErrorKind::kBadInput);
  EXPECT_TRUE(Says(
      report.error().ToString(),
      "expert 'e1': tensor 'a', block " + std::to_string(block) + ": is not what was analyzed"));
  statistics_.kinds[1] = StatisticsKind::kNone;
  EXPECT_TRUE(Run().has_value());
  ChangeInPlace("base", TensorNamed(merge_.base, "a"), block);
  Plan();
  const auto of_base = Run();
  ASSERT_FALSE(of_base.has_value());
  EXPECT_TRUE(Says(of_base.error().ToString(), "base: tensor 'a', block"));
}

}  // namespace
}  // namespace mergepipe
