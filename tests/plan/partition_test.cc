#include "mergepipe/plan/partition.h"

#include <gtest/gtest.h>

#include <algorithm>

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

std::vector<TensorSpec> Shapes70B() {
  std::vector<TensorSpec> tensors = {{"model.embed_tokens.weight", DType::kBF16, {128'256, 8192}}};
  for (int layer = 0; layer < 80; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const auto add = [&](const char* name, std::vector<uint64_t> shape) {
      tensors.push_back({prefix + name, DType::kBF16, std::move(shape)});
    };
    add("input_layernorm.weight", {8192});
    add("mlp.down_proj.weight", {8192, 28'672});
    add("mlp.gate_proj.weight", {28'672, 8192});
    add("mlp.up_proj.weight", {28'672, 8192});
    add("post_attention_layernorm.weight", {8192});
    add("self_attn.k_proj.weight", {1024, 8192});
    add("self_attn.o_proj.weight", {8192, 8192});
    add("self_attn.q_proj.weight", {8192, 8192});
    add("self_attn.v_proj.weight", {1024, 8192});
  }
  tensors.push_back({"lm_head.weight", DType::kBF16, {128'256, 8192}});
  tensors.push_back({"model.norm.weight", DType::kBF16, {8192}});
  return tensors;
}

TEST(Partition, BalancesA70BModelOver64Ranks) {
  Family family = MakeFamily(Shapes70B(), 3, 640'000);
  family.options.top_p = 0.35;
  family.options.budget_bytes = uint64_t{40} << 30;
  family.rounds = 2;
  const auto plan = family.MakePlan();
  ASSERT_TRUE(plan.has_value()) << plan.error().ToString();
  ASSERT_GT(plan->merge_bytes, uint64_t{39} << 30);
  const auto slices = PartitionPlan(*plan, 64);
  ASSERT_NO_FATAL_FAILURE(ExpectCover(*plan, slices));
  uint64_t total = 0;
  uint64_t largest = 0;
  for (const PlanSlice& slice : slices) {
    uint64_t cost = 0;
    for (const TensorRange& range : slice.ranges) cost += RangeCost(*plan, range);
    total += cost;
    largest = std::max(largest, cost);
  }
  const double ideal = static_cast<double>(total) / 64;
  const double block = 640'000 * (2 + 2 + 3 * 2);
  EXPECT_LE(static_cast<double>(largest), 1.01 * ideal + block) << "ideal " << ideal;
}

}  // namespace
}  // namespace mergepipe
