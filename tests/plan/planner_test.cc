#include "mergepipe/plan/planner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "mergepipe/plan/plan_codec.h"
#include "plan/plan_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

uint64_t Elements(const std::vector<uint64_t>& shape) {
  uint64_t elements = 1;
  for (const uint64_t dimension : shape) elements *= dimension;
  return elements;
}

uint64_t BytesOfBlock(const Plan& plan, size_t tensor, size_t expert, uint64_t block) {
  const uint64_t begin = block * plan.options.block_size;
  const uint64_t end =
      std::min(begin + plan.options.block_size, Elements(plan.tensors[tensor].shape));
  return (end - begin) * DTypeSize(plan.tensors[tensor].sources[expert].dtype);
}

// What reading one tensor's selection costs, from the definition; `with` is one more pair.
struct Pair {
  size_t expert;
  uint64_t block;
};
uint64_t TensorCost(const Plan& plan, size_t t, int rounds, std::optional<Pair> with = {}) {
  const PlannedTensor& tensor = plan.tensors[t];
  uint64_t bytes = with ? BytesOfBlock(plan, t, with->expert, with->block) : 0;
  for (size_t k = 0; k < tensor.selected.size(); ++k) {
    for (uint64_t b = 0; b < tensor.selected[k].size(); ++b) {
      if (tensor.selected[k].Contains(BlockIndex(b))) bytes += BytesOfBlock(plan, t, k, b);
    }
  }
  return bytes <= plan.options.resident_bytes ? bytes : bytes * (1 + static_cast<uint64_t>(rounds));
}

// A plan and what its family promised.
void ExpectSound(const Plan& plan, const Family& family) {
  uint64_t merge_bytes = 0;
  uint64_t blocks = 0;
  uint64_t touched = 0;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    const PlannedTensor& tensor = plan.tensors[t];
    const uint64_t cost = TensorCost(plan, t, family.rounds);
    merge_bytes += cost;
    uint64_t once = 0;
    for (size_t k = 0; k < tensor.selected.size(); ++k) {
      for (uint64_t b = 0; b < tensor.selected[k].size(); ++b) {
        if (tensor.selected[k].Contains(BlockIndex(b))) once += BytesOfBlock(plan, t, k, b);
      }
    }
    ASSERT_EQ(once * tensor.reads, cost);
    if (tensor.rule == TensorRule::kBase) {
      ASSERT_EQ(once, 0u);
      continue;
    }
    const uint64_t n =
        (Elements(tensor.shape) + plan.options.block_size - 1) / plan.options.block_size;
    blocks += n;
    for (uint64_t b = 0; b < n; ++b) {
      touched += std::ranges::any_of(tensor.selected,
                                     [&](const BlockSet& s) { return s.Contains(BlockIndex(b)); });
    }
  }
  ASSERT_EQ(plan.merge_bytes, merge_bytes);
  ASSERT_EQ(plan.fingerprint_bytes, family.Fingerprints());
  if (plan.options.budget_bytes) {
    ASSERT_LE(plan.fingerprint_bytes + plan.probe_bytes + plan.compare_bytes + merge_bytes,
              *plan.options.budget_bytes);
    ASSERT_LE(plan.probe_bytes, *plan.options.budget_bytes / 8);
  }
  ASSERT_LE(static_cast<double>(touched),
            std::ceil(plan.options.top_p * static_cast<double>(blocks) - 1e-9));
  ASSERT_LE(plan.objective, plan.objective_bound * (1 + 1e-12));
}

// No pair of a touched block that is left out would still fit.
void ExpectFilled(const Plan& plan, const Family& family) {
  if (!plan.options.budget_bytes) return;
  const uint64_t left = *plan.options.budget_bytes - plan.PlannedBytes();
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    const PlannedTensor& tensor = plan.tensors[t];
    const BlockSet touched = tensor.Touched(plan.options.block_size);
    for (size_t k = 0; k < tensor.selected.size(); ++k) {
      for (uint64_t b = 0; b < touched.size(); ++b) {
        const BlockIndex block(b);
        if (!tensor.sources[k].present || !touched.Contains(block) ||
            tensor.selected[k].Contains(block) || tensor.equal[k].Contains(block))
          continue;
        const uint64_t more =
            TensorCost(plan, t, family.rounds, Pair{k, b}) - TensorCost(plan, t, family.rounds);
        ASSERT_GT(more, left) << tensor.name << " block " << b << " expert " << k;
      }
    }
  }
}

TEST(Planner, KeepsEveryPromiseOnRandomFamilies) {
  std::mt19937_64 random(2);
  int planned = 0;
  int reread = 0;
  for (int i = 0; i < 3000; ++i) {
    const Family family = RandomFamily(random);
    const auto plan = family.MakePlan();
    if (!plan) {
      ASSERT_EQ(plan.error().kind(), ErrorKind::kUsage) << plan.error().ToString();
      continue;
    }
    ++planned;
    reread +=
        std::ranges::any_of(plan->tensors, [](const PlannedTensor& t) { return t.reads > 1; });
    ASSERT_NO_FATAL_FAILURE(ExpectSound(*plan, family)) << "family " << i;
    ASSERT_NO_FATAL_FAILURE(ExpectFilled(*plan, family)) << "family " << i;
    ASSERT_EQ(SerializePlan(*plan), SerializePlan(*family.MakePlan()));
    ASSERT_EQ(ParsePlan(SerializePlan(*plan), "plan.json"), *plan);
  }
  EXPECT_GT(planned, 2000);
  EXPECT_GT(reread, 300);
}

TEST(Planner, KeepsEveryPromiseWithStatisticsOfAllKinds) {
  std::mt19937_64 random(12);
  constexpr const char* kScorings[] = {"l2cos", "l2", "abs"};
  int planned = 0;
  int probed = 0;
  int left_equal = 0;
  for (int i = 0; i < 2000; ++i) {
    Family family = RandomFamily(random);
    family.options.scoring = kScorings[random() % 3];
    FakeStatistics statistics = RandomStatistics(family, random);
    for (StatisticsKind& kind : statistics.kinds) {
      if (random() % 3 == 0) kind = StatisticsKind::kNone;
    }
    const PlanInput input = family.Input(&statistics);
    const auto plan = ProbeAndPlan(input, statistics);
    if (!plan) {
      ASSERT_EQ(plan.error().kind(), ErrorKind::kUsage) << plan.error().ToString();
      continue;
    }
    ++planned;
    probed += plan->probe_bytes > 0 ? 1 : 0;
    ASSERT_NO_FATAL_FAILURE(ExpectSound(*plan, family)) << "family " << i;
    ASSERT_NO_FATAL_FAILURE(ExpectFilled(*plan, family)) << "family " << i;
    for (const PlannedTensor& tensor : plan->tensors) {
      for (size_t k = 0; k < tensor.equal.size(); ++k) {
        ASSERT_FALSE(tensor.equal[k].Intersects(tensor.selected[k]));
        left_equal += tensor.equal[k].Empty() ? 0 : 1;
      }
    }
    ASSERT_EQ(SerializePlan(*plan), SerializePlan(*MakePlan(input)));
    ASSERT_EQ(ParsePlan(SerializePlan(*plan), "plan.json"), *plan);
  }
  EXPECT_GT(planned, 1000);
  EXPECT_GT(probed, 100);
  EXPECT_GT(left_equal, 1000);
}

TEST(Planner, DoesNotSeePathsTimesOrOtherFacts) {
  std::mt19937_64 random(3);
  Family family = MakeFamily({{"a", DType::kF32, {10'000}}, {"b", DType::kBF16, {77, 13}}}, 3, 100);
  family.options.top_p = 0.5;
  const std::string text = SerializePlan(*family.MakePlan());
  for (ModelRecord* model : {&family.base, &family.experts[1]}) {
    model->registered_at = "2030-01-01T00:00:00Z";
    model->layout.path = model->layout.directory = "/elsewhere";
    model->layout.files[0].name = "other.safetensors";
    model->layout.files[0].info.mtime_ns += 1;
    model->layout.files[0].info.inode += 1;
    model->layout.files[0].info.device += 1;
    model->layout.files[0].header_hash = HashText("other");
  }
  EXPECT_EQ(SerializePlan(*family.MakePlan()), text);
  family.experts[1].fingerprint = HashText("retrained");
  EXPECT_NE(SerializePlan(*family.MakePlan()), text);
}

TEST(Planner, SelectsEverythingWithoutBudgetAndWithTopPOne) {
  Family family = MakeFamily({{"a", DType::kF32, {1001}},
                              {"scalar", DType::kBF16, {}},
                              {"none", DType::kF32, {0, 5}},
                              {"ids", DType::kU8, {3}}},
                             2, 10);
  family.options.scoring = "l2cos";  // no scores are needed, so no statistics are missed
  const auto plan = family.MakePlan();
  ASSERT_TRUE(plan.has_value()) << plan.error().ToString();
  EXPECT_EQ(plan->TouchedBlocks(), 102u);
  EXPECT_EQ(plan->MergeBlocks(), 102u);
  for (const size_t k : {0, 1}) {
    EXPECT_EQ(plan->tensors[0].selected[k].ToText(), "0-100");
    EXPECT_EQ(plan->tensors[1].selected[k].ToText(), "0");
    EXPECT_EQ(plan->tensors[2].selected[k].size(), 0u);
  }
  EXPECT_EQ(plan->merge_bytes, 2u * (1001 * 4 + 2));
}

TEST(Planner, TouchesExactlyTheShareThatTopPAllows) {
  for (const auto& [top_p, touched] : std::initializer_list<std::pair<double, uint64_t>>{
           {0.07, 7}, {0.35, 35}, {0.351, 36}, {0.0001, 1}, {0.29, 29}, {0.999, 100}, {1, 100}}) {
    Family family = MakeFamily({{"a", DType::kF32, {400}}, {"b", DType::kF32, {100}}}, 2, 5);
    family.options.top_p = top_p;
    EXPECT_EQ(family.MakePlan()->TouchedBlocks(), touched) << top_p;
  }
}

TEST(Planner, AnyTopPTouchesABlock) {
  Family family = MakeFamily({{"a", DType::kF32, {10}}}, 1, 5);
  family.options.top_p = 1e-12;
  EXPECT_EQ(family.MakePlan()->TouchedBlocks(), 1u);  // ceil(2e-12)
}

TEST(Planner, NamesAnUnknownScoring) {
  Family family = MakeFamily({{"a", DType::kF32, {10}}}, 1, 5);
  family.options.scoring = "l3";
  for (const double top_p : {0.5, 1.0}) {  // with 1 none is needed
    family.options.top_p = top_p;
    const auto plan = family.MakePlan();
    ASSERT_FALSE(plan.has_value());
    EXPECT_EQ(plan.error().kind(), ErrorKind::kUsage);
    EXPECT_TRUE(Says(plan.error().ToString(), "--scoring: there is no scoring 'l3'"));
    EXPECT_TRUE(Says(plan.error().ToString(), "uniform"));
  }
}

TEST(Planner, ChargesEveryReadOfATensorThatOutgrowsMemory) {
  Family family = MakeFamily({{"big", DType::kF32, {100}}, {"small", DType::kF32, {50}}}, 2, 10);
  family.rounds = 2;
  family.options.resident_bytes = 799;
  auto plan = family.MakePlan();
  EXPECT_EQ(plan->tensors[0].reads, 3u);
  EXPECT_EQ(plan->tensors[1].reads, 1u);
  EXPECT_EQ(plan->merge_bytes, 3u * 800 + 400);
  family.options.resident_bytes = 800;
  plan = family.MakePlan();
  EXPECT_EQ(plan->tensors[0].reads, 1u);
  EXPECT_EQ(plan->merge_bytes, 1200u);
  family.options.resident_bytes = 0;
  family.rounds = 0;  // a block-local strategy needs no memory
  EXPECT_EQ(family.MakePlan()->merge_bytes, 1200u);
}

// The number that "give at least N MiB" asks for.
uint64_t RemedyMiB(const Error& error) {
  EXPECT_EQ(error.kind(), ErrorKind::kUsage);
  EXPECT_EQ(error.problems().front().subject, "--io-budget-mb");
  const std::string& remedy = error.problems().front().remedy;
  constexpr std::string_view kBefore = "give at least ";
  EXPECT_EQ(remedy.substr(0, kBefore.size()), kBefore);
  uint64_t number = 0;
  std::from_chars(remedy.data() + kBefore.size(), remedy.data() + remedy.size(), number);
  EXPECT_EQ(remedy.substr(kBefore.size() + std::to_string(number).size(), 4), " MiB");
  return number;
}

void ExpectRemedyWorks(Family family) {
  const auto refused = family.MakePlan();
  ASSERT_FALSE(refused.has_value());
  const uint64_t enough = RemedyMiB(refused.error());
  ASSERT_GT(enough * kMiB, *family.options.budget_bytes);
  family.options.budget_bytes = enough * kMiB;
  const auto plan = family.MakePlan();
  ASSERT_TRUE(plan.has_value()) << "with the remedy: " << plan.error().ToString();
  EXPECT_GT(plan->TouchedBlocks(), 0u);
}

// One block of exactly 4 MiB less the fingerprint, so that the remedy has no slack from rounding.
constexpr uint64_t kBlock = (4 * kMiB - 64 * 1024) / 4;

TEST(Planner, ABudgetForLessThanABlockIsRefusedWithOneThatWorks) {
  for (const uint64_t budget : {uint64_t{0}, uint64_t{1}, uint64_t{65'536}, 4 * kMiB - 1}) {
    Family family = MakeFamily({{"a", DType::kF32, {3, kBlock}}}, 1, kBlock);
    family.options.budget_bytes = budget;
    ExpectRemedyWorks(family);
  }
}

TEST(Planner, TheRemedyCountsSeveralExpertsAndTopP) {
  Family family =
      MakeFamily({{"a", DType::kF32, {7, kBlock}}, {"b", DType::kBF16, {5, 1000}}}, 3, kBlock);
  family.options.top_p = 0.2;
  family.options.budget_bytes = 1000;
  ExpectRemedyWorks(family);
}

TEST(Planner, TheRemedyCountsRepeatedReads) {
  Family family = MakeFamily({{"a", DType::kF32, {kBlock}}}, 1, kBlock);
  family.rounds = 2;
  family.options.resident_bytes = 1000;
  family.options.budget_bytes = kMiB;
  ExpectRemedyWorks(family);
}

TEST(Planner, TheRemedyCountsIntegersThatItsBudgetWouldCompare) {
  Family family =
      MakeFamily({{"a", DType::kF32, {kBlock}}, {"ids", DType::kU8, {20'000}}}, 1, kBlock);
  family.options.budget_bytes = kMiB;
  ExpectRemedyWorks(family);
}

TEST(Planner, NothingToMergeNeedsNoBudgetBeyondTheFixedReads) {
  Family family = MakeFamily({{"ids", DType::kI32, {10}}}, 1, 5);
  family.options.budget_bytes = 40;
  const auto plan = family.MakePlan();
  ASSERT_TRUE(plan.has_value()) << plan.error().ToString();
  EXPECT_EQ(plan->PlannedBytes(), 40u);
  EXPECT_EQ(plan->objective_bound, 0.0);
}

}  // namespace
}  // namespace mergepipe
