#include "run/audit_sample.h"

#include <gtest/gtest.h>

#include <set>

namespace mergepipe {
namespace {

constexpr uint64_t kBlock = 10;

PlannedTensor MakeTensor(const std::string& name, uint64_t blocks,
                         const std::vector<uint64_t>& selected) {
  PlannedTensor tensor;
  tensor.name = name;
  tensor.shape = {blocks * kBlock - (blocks > 0 ? 3 : 0)};
  tensor.sources.resize(1);
  tensor.selected.emplace_back(blocks);
  for (const uint64_t block : selected) tensor.selected[0].Add(BlockIndex(block));
  return tensor;
}

Plan MakePlan() {
  Plan plan;
  plan.options.block_size = kBlock;
  plan.experts.resize(1);
  plan.tensors = {MakeTensor("a", 5, {0, 3, 4}), MakeTensor("empty", 0, {}),
                  MakeTensor("b", 40, {}), MakeTensor("c", 7, {1, 2, 6})};
  return plan;
}

using Place = std::pair<uint32_t, uint64_t>;

std::set<Place> BlocksOf(const std::vector<TensorRange>& ranges) {
  std::set<Place> blocks;
  for (const TensorRange& range : ranges) {
    for (uint64_t b = range.begin.value; b < range.end.value; ++b)
      EXPECT_TRUE(blocks.insert({range.tensor, b}).second) << "block " << b << " twice";
  }
  return blocks;
}

TEST(AuditSample, TakesAsManyAsAreAskedFor) {
  const Plan plan = MakePlan();
  for (const uint64_t count : {0, 1, 2, 17, 51, 52, 53, 1000}) {
    const auto ranges = ChooseSample(plan, OutputForm::kFull, false, count, 1);
    EXPECT_EQ(BlocksOf(ranges).size(), std::min<uint64_t>(count, 52)) << count;
    for (size_t i = 1; i < ranges.size(); ++i) {
      EXPECT_LT(std::pair(ranges[i - 1].tensor, ranges[i - 1].begin),
                std::pair(ranges[i].tensor, ranges[i].begin));
    }
  }
}

TEST(AuditSample, IsAFunctionOfTheSeed) {
  const Plan plan = MakePlan();
  const auto draw = [&](uint64_t seed) {
    return BlocksOf(ChooseSample(plan, OutputForm::kFull, false, 6, seed));
  };
  EXPECT_EQ(draw(3), draw(3));
  EXPECT_NE(draw(3), draw(4));
  // The first numbers of mt19937_64(5489), modulo 51 and 52: the same on every machine.
  EXPECT_EQ(BlocksOf(ChooseSample(plan, OutputForm::kFull, false, 2, 5489)),
            (std::set<Place>{{0, 0}, {2, 17}}));
  std::set<Place> seen;
  for (uint64_t seed = 0; seed < 500; ++seed) seen.merge(draw(seed));
  EXPECT_EQ(seen.size(), 52u) << "some blocks are never drawn";
}

TEST(AuditSample, OfASparseOutputTakesTouchedBlocksOnly) {
  const auto blocks = BlocksOf(ChooseSample(MakePlan(), OutputForm::kSparse, false, 1000, 2));
  EXPECT_EQ(blocks, (std::set<Place>{{0, 0}, {0, 3}, {0, 4}, {3, 1}, {3, 2}, {3, 6}}));
}

TEST(AuditSample, TakesMergedTensorsWholeWhereTheirBlocksDependOnEachOther) {
  const Plan plan = MakePlan();
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const auto ranges = ChooseSample(plan, OutputForm::kFull, true, 3, seed);
    for (const TensorRange& range : ranges) {
      const uint64_t blocks = range.end.value - range.begin.value;
      EXPECT_EQ(blocks, range.tensor == 2 ? 1 : plan.tensors[range.tensor].Blocks(kBlock));
    }
    BlocksOf(ranges);  // none twice
  }
}

TEST(AuditSample, DealsATensorToOneRank) {
  const auto ranges = ChooseSample(MakePlan(), OutputForm::kFull, false, 1000, 1);
  for (const int ranks : {1, 2, 3, 8}) {
    const auto slices = DealRanges(ranges, ranks);
    ASSERT_EQ(slices.size(), static_cast<size_t>(ranks));
    size_t dealt = 0;
    for (const PlanSlice& slice : slices) dealt += slice.ranges.size();
    EXPECT_EQ(dealt, ranges.size());
    for (const auto& [tensor, sharing] : FindSharing(slices)) EXPECT_FALSE(sharing.shared());
  }
}

}  // namespace
}  // namespace mergepipe
