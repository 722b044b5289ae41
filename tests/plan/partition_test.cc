#include "mergepipe/plan/partition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "plan/llama_shapes.h"
#include "plan/plan_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

TensorRange Whole(const Plan& plan, uint32_t tensor) {
  return {tensor, BlockIndex(0), BlockIndex(plan.tensors[tensor].Blocks(plan.options.block_size))};
}

// Every block exactly once and in order, no empty range, at most one range a tensor in a slice.
void ExpectCover(const Plan& plan, const std::vector<PlanSlice>& slices) {
  uint32_t tensor = 0;
  uint64_t block = 0;
  const auto skip_finished = [&] {
    while (tensor < plan.tensors.size() && block == Whole(plan, tensor).end.value)
      ++tensor, block = 0;
  };
  for (const PlanSlice& slice : slices) {
    for (size_t i = 0; i < slice.ranges.size(); ++i) {
      skip_finished();
      const TensorRange& range = slice.ranges[i];
      ASSERT_EQ(range.tensor, tensor);
      ASSERT_EQ(range.begin.value, block);
      ASSERT_LT(range.begin, range.end);
      ASSERT_TRUE(i == 0 || slice.ranges[i - 1].tensor != range.tensor);
      block = range.end.value;
    }
  }
  skip_finished();
  ASSERT_EQ(tensor, plan.tensors.size());
}

void ExpectBytesAddUp(const Plan& plan, const std::vector<PlanSlice>& slices) {
  uint64_t merge = 0;
  uint64_t compare = 0;
  for (const PlanSlice& slice : slices) {
    for (const TensorRange& range : slice.ranges) {
      merge += RangeMergeBytes(plan, range);
      compare += RangeCompareBytes(plan, range);
    }
  }
  ASSERT_EQ(merge, plan.merge_bytes);
  ASSERT_EQ(compare, plan.compare_bytes);
}

constexpr PlanWork kWorks[] = {PlanWork::kMerge, PlanWork::kSparseMerge, PlanWork::kMaterialize};
constexpr int kRanks[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 64, 1024};

TEST(Partition, CoversRandomPlansForAnyNumberOfRanks) {
  std::mt19937_64 random(8);
  int planned = 0;
  for (int i = 0; i < 60; ++i) {
    Family family = RandomFamily(random);
    family.options.block_size = 1 + family.options.block_size % 500;
    const auto plan = family.MakePlan();
    if (!plan) continue;
    ++planned;
    for (const int ranks : kRanks) {
      const auto slices = PartitionPlan(*plan, ranks);
      ASSERT_EQ(slices.size(), static_cast<size_t>(ranks));
      ASSERT_NO_FATAL_FAILURE(ExpectCover(*plan, slices))
          << "family " << i << ", " << ranks << " ranks";
      ASSERT_NO_FATAL_FAILURE(ExpectBytesAddUp(*plan, slices));
      ASSERT_EQ(PartitionPlan(*plan, ranks), slices);
    }
  }
  EXPECT_GT(planned, 30);
}

TEST(Partition, CountsTheCostOfARange) {
  Family family = MakeFamily({{"a", DType::kBF16, {25}}, {"ids", DType::kI32, {25}}}, 2, 10);
  family.options.out_dtype = DType::kF32;
  family.rounds = 2;
  family.options.resident_bytes = 0;
  const auto plan = family.MakePlan();
  const TensorRange tail{0, BlockIndex(1), BlockIndex(3)};
  EXPECT_EQ(RangeMergeBytes(*plan, tail), 2u * 15 * 2 * 3);
  EXPECT_EQ(RangeCompareBytes(*plan, tail), 0u);
  EXPECT_EQ(RangeCost(*plan, tail), 15u * (2 + 4) + 2 * 15 * 2 * 3);
  const TensorRange integers{1, BlockIndex(2), BlockIndex(3)};
  EXPECT_EQ(RangeMergeBytes(*plan, integers), 0u);
  EXPECT_EQ(RangeCompareBytes(*plan, integers), 2u * 5 * 4);
  EXPECT_EQ(RangeCost(*plan, integers), 5u * (4 + 4) + 2 * 5 * 4);
}

TEST(Partition, CountsWhatASparseMergeAndMaterializeDo) {
  Family family = MakeFamily({{"a", DType::kBF16, {25}}, {"ids", DType::kI32, {25}}}, 2, 10);
  family.options.out_dtype = DType::kF32;
  auto plan = family.MakePlan();
  ASSERT_TRUE(plan.has_value());
  plan->tensors[0].selected[0] = *BlockSet::FromText("1", 3);
  plan->tensors[0].selected[1] = *BlockSet::FromText("1-2", 3);
  const TensorRange untouched{0, BlockIndex(0), BlockIndex(1)};
  EXPECT_EQ(RangeCost(*plan, untouched, PlanWork::kMerge), 10u * (2 + 4));
  EXPECT_EQ(RangeCost(*plan, untouched, PlanWork::kSparseMerge), 0u);
  EXPECT_EQ(RangeCost(*plan, untouched, PlanWork::kMaterialize), 10u * (2 + 4));
  const TensorRange whole = Whole(*plan, 0);
  EXPECT_EQ(RangeCost(*plan, whole, PlanWork::kSparseMerge), 15u * (2 + 4) + (10 + 15) * 2);
  EXPECT_EQ(RangeCost(*plan, whole, PlanWork::kMaterialize), 25u * (2 + 4) + 15 * 4);
  const TensorRange integers = Whole(*plan, 1);
  EXPECT_EQ(RangeCost(*plan, integers, PlanWork::kSparseMerge), 25u * 4 + 2 * 25 * 4);
  EXPECT_EQ(RangeCost(*plan, integers, PlanWork::kMaterialize), 25u * (4 + 4));
}

// A range costs what its blocks cost, however its tensor is cut.
TEST(Partition, CostsAddUp) {
  std::mt19937_64 random(11);
  for (int i = 0; i < 20; ++i) {
    Family family = RandomFamily(random);
    family.options.block_size = 1 + family.options.block_size % 500;
    const auto plan = family.MakePlan();
    if (!plan) continue;
    for (uint32_t t = 0; t < plan->tensors.size(); ++t) {
      for (const PlanWork work : kWorks) {
        const TensorRange whole = Whole(*plan, t);
        uint64_t sum = 0;
        for (BlockIndex b = whole.begin; b < whole.end; ++b)
          sum += RangeCost(*plan, {t, b, BlockIndex(b.value + 1)}, work);
        ASSERT_EQ(RangeCost(*plan, whole, work), sum);
      }
    }
  }
}

// What WithoutDone leaves of each slice.
std::vector<PlanSlice> LeftOf(std::vector<PlanSlice> slices, const std::vector<BlockSet>& done) {
  for (PlanSlice& slice : slices) {
    std::vector<TensorRange> left;
    for (const TensorRange& range : slice.ranges) {
      const BlockSet none;
      std::ranges::copy(WithoutDone(range, done.empty() ? none : done[range.tensor]),
                        std::back_inserter(left));
    }
    slice.ranges = std::move(left);
  }
  return slices;
}

// Random blocks that are done.
std::vector<BlockSet> SomeDone(const Plan& plan, std::mt19937_64& random) {
  std::vector<BlockSet> done;
  for (const PlannedTensor& tensor : plan.tensors) {
    BlockSet& set = done.emplace_back(tensor.Blocks(plan.options.block_size));
    if (random() % 3 == 0) continue;
    const uint64_t run = 1 + random() % 20;
    for (uint64_t b = 0; b < set.size(); ++b) {
      if (b / run % 2 == random() % 2) set.Add(BlockIndex(b));
    }
  }
  return done;
}

TEST(Partition, LeavesEveryBlockThatIsNotDoneToOneSlice) {
  std::mt19937_64 random(21);
  for (int i = 0; i < 30; ++i) {
    Family family = RandomFamily(random);
    family.options.block_size = 1 + family.options.block_size % 500;
    const auto plan = family.MakePlan();
    if (!plan) continue;
    const std::vector<BlockSet> done = SomeDone(*plan, random);
    for (const int ranks : {1, 2, 3, 7}) {
      const auto slices = PartitionPlan(*plan, ranks, PlanWork::kMerge, done);
      ASSERT_NO_FATAL_FAILURE(ExpectCover(*plan, slices));
      std::vector<BlockSet> seen = done;
      for (const PlanSlice& slice : LeftOf(slices, done)) {
        for (const TensorRange& range : slice.ranges) {
          ASSERT_LT(range.begin, range.end);
          for (uint64_t b = range.begin.value; b < range.end.value; ++b) {
            ASSERT_FALSE(seen[range.tensor].Contains(BlockIndex(b)));
            seen[range.tensor].Add(BlockIndex(b));
          }
        }
      }
      for (const BlockSet& blocks : seen) ASSERT_EQ(blocks.Count(), blocks.size());
    }
    EXPECT_EQ(LeftOf(PartitionPlan(*plan, 3), {}), PartitionPlan(*plan, 3));
  }
}

TEST(Partition, BalancesWhatIsLeft) {
  Family family =
      MakeFamily({{"a", DType::kBF16, {100'000}}, {"b", DType::kBF16, {100'000}}}, 2, 10);
  const auto plan = family.MakePlan();
  std::vector<BlockSet> done(2, BlockSet(10'000));
  for (uint64_t b = 0; b < 9000; ++b) done[0].Add(BlockIndex(b));
  uint64_t least = UINT64_MAX;
  uint64_t most = 0;
  for (const PlanSlice& slice : LeftOf(PartitionPlan(*plan, 4, PlanWork::kMerge, done), done)) {
    uint64_t cost = 0;
    for (const TensorRange& range : slice.ranges) cost += RangeCost(*plan, range);
    least = std::min(least, cost);
    most = std::max(most, cost);
  }
  EXPECT_GT(least, 0u);
  EXPECT_LT(static_cast<double>(most), 1.02 * static_cast<double>(least));
}

TEST(Partition, LeavesRanksWithoutBlocksEmpty) {
  const auto plan = MakeFamily({{"a", DType::kF32, {30}}}, 1, 10).MakePlan();
  const auto slices = PartitionPlan(*plan, 7);
  EXPECT_EQ(std::ranges::count_if(slices, [](const PlanSlice& s) { return s.ranges.empty(); }), 4);
  ExpectCover(*plan, slices);
}

TEST(Partition, HandlesEmptyAndRankZeroTensors) {
  const std::vector<TensorSpec> tensors = {{"none", DType::kF32, {0}},
                                           {"scalar", DType::kF32, {}},
                                           {"empty", DType::kBF16, {5, 0, 2}},
                                           {"other", DType::kI8, {}},
                                           {"last", DType::kF32, {0}}};
  const auto plan = MakeFamily(tensors, 2, 10).MakePlan();
  for (const int ranks : kRanks) {
    const auto slices = PartitionPlan(*plan, ranks);
    ASSERT_NO_FATAL_FAILURE(ExpectCover(*plan, slices)) << ranks;
    size_t ranges = 0;
    for (const PlanSlice& slice : slices) ranges += slice.ranges.size();
    EXPECT_EQ(ranges, 2u);
  }
}

TEST(Partition, HandlesAPlanWithoutAnyBlock) {
  for (const auto& tensors :
       {std::vector<TensorSpec>{}, std::vector<TensorSpec>{{"none", DType::kF32, {0}}}}) {
    const auto plan = MakeFamily(tensors, 1, 10).MakePlan();
    for (const PlanSlice& slice : PartitionPlan(*plan, 5)) EXPECT_TRUE(slice.ranges.empty());
  }
}

TEST(Partition, CutsAtATensorsEndWhereItIsNear) {
  // Tensors of 1000 blocks, 10 of which are 1 % of a share: the ideal cut, at 1005, is near the
  // boundary.
  const auto near =
      MakeFamily({{"a", DType::kF32, {10'000}}, {"b", DType::kF32, {10'100}}}, 1, 10).MakePlan();
  auto slices = PartitionPlan(*near, 2);
  EXPECT_EQ(slices[0].ranges, (std::vector<TensorRange>{Whole(*near, 0)}));
  const auto far =
      MakeFamily({{"a", DType::kF32, {10'000}}, {"b", DType::kF32, {10'400}}}, 1, 10).MakePlan();
  slices = PartitionPlan(*far, 2);
  EXPECT_EQ(slices[0].ranges,
            (std::vector<TensorRange>{Whole(*far, 0), {1, BlockIndex(0), BlockIndex(20)}}));
}

// Every rank that holds a part of a tensor, and none between them that has nothing to say of it.
void ExpectNeighboursShare(const std::vector<PlanSlice>& slices) {
  const auto sharing = FindSharing(slices);
  std::map<uint32_t, int> holders;
  for (size_t rank = 0; rank < slices.size(); ++rank) {
    std::map<uint32_t, int> of_parity;
    for (const TensorRange& range : slices[rank].ranges) {
      const TensorSharing& ranks = sharing.at(range.tensor);
      ASSERT_GE(static_cast<int>(rank), ranks.first_rank);
      ASSERT_LE(static_cast<int>(rank), ranks.last_rank);
      ++holders[range.tensor];
      if (ranks.shared()) {
        ASSERT_EQ(++of_parity[ranks.ordinal % 2], 1) << "rank " << rank;
      }
    }
  }
  ASSERT_EQ(holders.size(), sharing.size());
  for (const auto& [tensor, count] : holders)
    ASSERT_EQ(count, sharing.at(tensor).last_rank - sharing.at(tensor).first_rank + 1) << tensor;
}

TEST(Partition, LetsNeighboursShareWithOnePartOfAParity) {
  std::mt19937_64 random(9);
  for (int i = 0; i < 60; ++i) {
    Family family = RandomFamily(random);
    family.options.block_size = 1 + family.options.block_size % 500;
    const auto plan = family.MakePlan();
    if (!plan) continue;
    for (const PlanWork work : kWorks) {
      for (const int ranks : kRanks)
        ASSERT_NO_FATAL_FAILURE(ExpectNeighboursShare(PartitionPlan(*plan, ranks, work)))
            << "family " << i << ", " << ranks << " ranks";
    }
  }
}

// More ranks than a tensor has blocks: some would get nothing between two that share it.
TEST(Partition, PutsSlicesWithoutBlocksLast) {
  const auto plan = MakeFamily({{"a", DType::kF32, {30}}}, 1, 10).MakePlan();
  const auto slices = PartitionPlan(*plan, 7);
  for (size_t rank = 0; rank < slices.size(); ++rank)
    EXPECT_EQ(slices[rank].ranges.empty(), rank >= 3) << rank;
  ExpectNeighboursShare(slices);
}

// Unselects everything in runs of random length, as if the experts had not touched these places.
void Cool(Plan& plan, std::mt19937_64& random) {
  plan.merge_bytes = 0;
  for (uint32_t t = 0; t < plan.tensors.size(); ++t) {
    PlannedTensor& tensor = plan.tensors[t];
    const uint64_t blocks = tensor.Blocks(plan.options.block_size);
    for (uint64_t begin = 0; begin < blocks;) {
      const uint64_t end = std::min(blocks, begin + 1 + random() % 400);
      const bool cold = random() % 2 == 0;
      for (BlockSet& selected : tensor.selected) {
        const bool skip = !cold && random() % 3 != 0;
        for (uint64_t b = begin; (cold || skip) && b < end; ++b) selected.Remove(BlockIndex(b));
      }
      begin = end;
    }
    plan.merge_bytes += RangeMergeBytes(plan, Whole(plan, t));
  }
}

// No slice is further from the mean than 2 % of it; or than the largest block where slices are made
// of a few blocks, as cuts cannot be finer.
enum class Slices { kOfManyBlocks, kOfFewBlocks };
void ExpectBalanced(const Plan& plan, int ranks, PlanWork work, Slices slices_are) {
  const auto slices = PartitionPlan(plan, ranks, work);
  ASSERT_NO_FATAL_FAILURE(ExpectCover(plan, slices));
  ASSERT_NO_FATAL_FAILURE(ExpectBytesAddUp(plan, slices));
  ASSERT_NO_FATAL_FAILURE(ExpectNeighboursShare(slices));
  uint64_t largest_block = 0;
  double total = 0;
  for (uint32_t t = 0; t < plan.tensors.size(); ++t) {
    const TensorRange whole = Whole(plan, t);
    total += static_cast<double>(RangeCost(plan, whole, work));
    for (BlockIndex b = whole.begin; b < whole.end; ++b) {
      const TensorRange block{t, b, BlockIndex(b.value + 1)};
      largest_block = std::max(largest_block, RangeCost(plan, block, work));
    }
  }
  const double mean = total / ranks;
  const double most = slices_are == Slices::kOfManyBlocks
                          ? 0.02 * mean
                          : std::max(0.02 * mean, static_cast<double>(largest_block));
  for (const PlanSlice& slice : slices) {
    double cost = 0;
    for (const TensorRange& range : slice.ranges)
      cost += static_cast<double>(RangeCost(plan, range, work));
    ASSERT_LE(std::abs(cost - mean), most) << "mean " << mean << ", block " << largest_block;
  }
}

class LargeModels : public testing::TestWithParam<std::tuple<LlamaShape, int>> {
 protected:
  // The full read, or so many bytes and at most 35 % of the blocks.
  static Plan PlanOf(std::optional<uint64_t> budget_bytes) {
    const auto& [shape, rounds] = GetParam();
    Family family = MakeFamily(LlamaTensors(shape), 3, 640'000);
    family.rounds = rounds;
    family.options.budget_bytes = budget_bytes;
    if (budget_bytes) family.options.top_p = 0.35;
    auto plan = family.MakePlan();
    EXPECT_TRUE(plan.has_value()) << plan.error().ToString();
    return plan ? *std::move(plan) : Plan();
  }
};

TEST_P(LargeModels, FullReadIsBalancedOver1024Ranks) {
  const Plan plan = PlanOf({});
  ASSERT_GT(plan.merge_bytes, uint64_t{390} << 30);
  for (const PlanWork work : kWorks) {
    SCOPED_TRACE(static_cast<int>(work));
    ASSERT_NO_FATAL_FAILURE(ExpectBalanced(plan, 1024, work, Slices::kOfManyBlocks));
  }
}

TEST_P(LargeModels, BudgetedReadIsBalancedOver1024Ranks) {
  const Plan plan = PlanOf(uint64_t{60} << 30);
  ASSERT_GT(plan.merge_bytes, uint64_t{59} << 30);
  for (const PlanWork work : kWorks) {
    SCOPED_TRACE(static_cast<int>(work));
    ASSERT_NO_FATAL_FAILURE(ExpectBalanced(
        plan, 1024, work,
        work == PlanWork::kSparseMerge ? Slices::kOfFewBlocks : Slices::kOfManyBlocks));
  }
}

TEST_P(LargeModels, UnevenReadIsBalancedOver1024Ranks) {
  Plan plan = PlanOf({});
  std::mt19937_64 random(10);
  Cool(plan, random);
  for (const PlanWork work : kWorks) {
    SCOPED_TRACE(static_cast<int>(work));
    ASSERT_NO_FATAL_FAILURE(ExpectBalanced(
        plan, 1024, work,
        work == PlanWork::kSparseMerge ? Slices::kOfFewBlocks : Slices::kOfManyBlocks));
  }
}

INSTANTIATE_TEST_SUITE_P(Partition, LargeModels,
                         testing::Combine(testing::Values(kLlama70B, kLlama405B),
                                          testing::Values(0, 2)),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param).layers) + "_layers_" +
                                  (std::get<1>(test.param) == 0 ? "avg" : "ties");
                         });

}  // namespace
}  // namespace mergepipe
