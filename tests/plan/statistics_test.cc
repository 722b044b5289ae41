#include "mergepipe/plan/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "mergepipe/plan/plan_codec.h"
#include "plan/passes.h"
#include "plan/plan_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

// Three experts and a budget for some of the blocks; the third lacks a tensor.
struct Known {
  Family family;
  FakeStatistics statistics;

  explicit Known(uint64_t seed = 41) : family(MakeIt()), statistics(Random(family, seed)) {}
  PlanInput Input() { return family.Input(&statistics); }

  static Family MakeIt() {
    const std::vector<TensorSpec> tensors = {
        {"a", DType::kF32, {100, 10}}, {"ids", DType::kI32, {50}}, {"b", DType::kBF16, {905}}};
    Family family = MakeFamily(tensors, 3, 10);
    family.experts[2] = MakeModel("expert2", {tensors[0], tensors[1]});
    family.options.missing = MismatchPolicy::kBase;
    family.options.scoring = "l2cos";
    family.options.budget_bytes = family.Fingerprints() + 2000;
    return family;
  }
  static FakeStatistics Random(const Family& family, uint64_t seed) {
    std::mt19937_64 random(seed);
    return RandomStatistics(family, random);
  }
};

TEST(EqualBlocks, AreAsGoodAsRead) {
  Known known;
  known.family.options.budget_bytes.reset();
  const auto plan = MakePlan(known.Input());
  ASSERT_TRUE(plan.has_value()) << plan.error().ToString();
  for (uint32_t t = 0; t < 3; ++t) {
    const PlannedTensor& tensor = plan->tensors[t];
    for (uint32_t k = 0; k < 3; ++k) {
      const auto& stored = known.statistics.stored[k][t];
      const bool merged = tensor.rule == TensorRule::kMerge && tensor.sources[k].present;
      for (uint64_t b = 0; b < stored.size(); ++b) {
        const bool equal = merged && stored[b].nonzeros == 0;
        ASSERT_EQ(tensor.equal[k].Contains(BlockIndex(b)), equal);
        ASSERT_EQ(tensor.selected[k].Contains(BlockIndex(b)), merged && !equal);
      }
      ASSERT_EQ(tensor.CountedElements(k, 10), merged ? tensor.elements() : 0);
    }
  }
}

TEST(EqualBlocks, AreNoCandidatesAndTakeNoShareOfTopP) {
  Family family = MakeFamily({{"a", DType::kF32, {100}}}, 1, 10);
  family.options.scoring = "uniform";
  family.options.top_p = 0.5;
  FakeStatistics statistics(family);  // all but these are equal
  for (const uint64_t b : {2, 5, 7}) statistics.stored[0][0][b].nonzeros = 1;
  const auto plan = MakePlan(family.Input(&statistics));
  EXPECT_EQ(plan->tensors[0].selected[0].ToText(), "2,5,7");
  EXPECT_EQ(plan->tensors[0].equal[0].Count(), 7u);
  EXPECT_EQ(plan->tensors[0].blocks_beyond_top_p, 0u);
}

TEST(EqualBlocks, AloneMakeAPlanThatReadsNothing) {
  Family family = MakeFamily({{"a", DType::kF32, {100}}}, 2, 10);
  family.options.budget_bytes = family.Fingerprints();
  FakeStatistics statistics(family);
  const auto plan = MakePlan(family.Input(&statistics));
  ASSERT_TRUE(plan.has_value()) << plan.error().ToString();
  EXPECT_EQ(plan->merge_bytes, 0u);
  EXPECT_EQ(EnergyCovered(*plan), 1.0);
}

TEST(Selection, SaysWhyTheRestIsLeft) {
  Family family = MakeFamily({{"a", DType::kF32, {40}}, {"b", DType::kF32, {40}}}, 1, 10);
  family.options.scoring = "l2";
  family.options.top_p = 0.5;
  family.options.budget_bytes = family.Fingerprints() + 80;  // two blocks
  FakeStatistics statistics(family);
  constexpr double kSquares[2][4] = {{8, 7, 1, 2}, {3, 4, 5, 6}};
  for (size_t t = 0; t < 2; ++t) {
    for (size_t b = 0; b < 4; ++b) {
      statistics.stored[0][t][b].sum_squares = kSquares[t][b];
      statistics.stored[0][t][b].nonzeros = 1;
    }
  }
  const auto plan = MakePlan(family.Input(&statistics));
  EXPECT_EQ(plan->tensors[0].selected[0].ToText(), "0-1");
  EXPECT_EQ(plan->tensors[0].blocks_beyond_top_p, 2u);
  EXPECT_EQ(plan->tensors[0].best_left_score_per_byte, 0.0);
  EXPECT_EQ(plan->tensors[1].selected[0].ToText(), "");
  EXPECT_EQ(plan->tensors[1].blocks_beyond_top_p, 2u);
  EXPECT_EQ(plan->tensors[1].best_left_score_per_byte, 6.0 / 40);
  EXPECT_EQ(plan->cutoff_score_per_byte, 6.0 / 40);
  EXPECT_EQ(plan->objective, 15.0);
  EXPECT_EQ(plan->tensors[0].energy[0], (DeltaEnergy{18, 15}));
  EXPECT_EQ(plan->tensors[1].energy[0], (DeltaEnergy{18, 0}));
  EXPECT_DOUBLE_EQ(*EnergyCovered(*plan), 15.0 / 36);
}

TEST(Energy, IsTheSumOverBlocks) {
  Known known;
  const auto plan = MakePlan(known.Input());
  DeltaEnergy all;
  for (uint32_t t = 0; t < 3; ++t) {
    for (uint32_t k = 0; k < 3; ++k) {
      const PlannedTensor& tensor = plan->tensors[t];
      ASSERT_EQ(tensor.energy[k].has_value(),
                tensor.sources[k].present && tensor.rule == TensorRule::kMerge);
      if (!tensor.energy[k]) continue;
      DeltaEnergy plain;
      for (uint64_t b = 0; b < tensor.selected[k].size(); ++b) {
        const double squares = known.statistics.stored[k][t][b].sum_squares;
        plain.total += squares;
        if (tensor.selected[k].Contains(BlockIndex(b))) plain.selected += squares;
      }
      ASSERT_EQ(*tensor.energy[k], plain);
      all.total += plain.total;
      all.selected += plain.selected;
    }
  }
  EXPECT_GT(all.selected, 0);
  EXPECT_EQ(EnergyCovered(*plan), all.selected / all.total);
}

TEST(Energy, IsNotKnownIfAnExpertIsNot) {
  Known known;
  known.family.options.scoring = "uniform";
  known.statistics.kinds[1] = StatisticsKind::kNone;
  const auto plan = MakePlan(known.Input());
  EXPECT_TRUE(plan->tensors[0].energy[0].has_value());
  EXPECT_FALSE(plan->tensors[0].energy[1].has_value());
  EXPECT_FALSE(EnergyCovered(*plan).has_value());
}

TEST(NeedsScores, OnlyWhereThereIsAChoice) {
  Known known;
  const auto needs = [&] {
    const PlanInput input = known.Input();
    return NeedsScores(input, *StartPlan(input));
  };
  EXPECT_TRUE(needs());
  known.family.options.scoring = "uniform";
  EXPECT_FALSE(needs());
  known.family.options.scoring = "abs";
  known.family.options.budget_bytes.reset();
  EXPECT_FALSE(needs());
  known.family.options.top_p = 0.99;
  EXPECT_TRUE(needs());
  known.family.options.top_p = 1;
  // Integers are compared only if they are 1 % of the budget.
  const uint64_t all = 3 * 4000 + 2 * 1810 + known.family.Fingerprints();
  ASSERT_GT(3 * 200, all / 100);
  known.family.options.budget_bytes = all;
  EXPECT_FALSE(needs());
  known.family.options.budget_bytes = all - 1;
  EXPECT_TRUE(needs());
}

TEST(NeedsScores, NotForIntegersAlone) {
  Family family = MakeFamily({{"ids", DType::kI32, {10}}}, 1, 5);
  family.options.scoring = "l2cos";
  family.options.top_p = 0.5;
  const PlanInput input = family.Input();
  EXPECT_FALSE(NeedsScores(input, *StartPlan(input)));
  EXPECT_TRUE(MakePlan(input).has_value());
}

TEST(ScorePairs, NamesTheExpertWithoutStatistics) {
  Known known;
  known.statistics.kinds[1] = StatisticsKind::kNone;
  const auto plan = MakePlan(known.Input());
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().kind(), ErrorKind::kUsage);
  EXPECT_TRUE(Says(plan.error().ToString(), "'expert1' at block size 10"));
  EXPECT_TRUE(Says(plan.error().ToString(), "mergepipe analyze"));
}

TEST(Statistics, OfTheSameContentGiveTheSamePlan) {
  Known one;
  Known two;
  const auto plan = MakePlan(one.Input());
  EXPECT_EQ(PlanHash(*plan), PlanHash(*MakePlan(two.Input())));
  EXPECT_EQ(PlanHash(*plan), PlanHash(*MakePlan(one.Input())));
  for (const PlannedStatistics& used : plan->statistics) {
    EXPECT_EQ(used.kind, StatisticsKind::kExact);
    EXPECT_NE(used.hash, Hash128());
  }
  EXPECT_NE(plan->statistics[0].hash, plan->statistics[1].hash);
}

TEST(Statistics, ArePartOfThePlanToTheLastBit) {
  Known known;
  const auto before = MakePlan(known.Input());
  BlockStatistics& block = known.statistics.stored[1][2][90];
  for (const int part : {0, 1, 2}) {
    const BlockStatistics original = block;
    if (part == 0) block.sketch[31] ^= 1;
    if (part == 1) block.hash.low ^= 1;
    if (part == 2) block.sum_squares = std::nextafter(block.sum_squares, 1e99);
    const auto after = MakePlan(known.Input());
    EXPECT_NE(after->statistics[1].hash, before->statistics[1].hash) << part;
    EXPECT_EQ(after->statistics[0], before->statistics[0]);
    EXPECT_NE(PlanHash(*after), PlanHash(*before));
    block = original;
  }
}

TEST(Statistics, OfNoExpertLeaveNoHash) {
  Known known;
  known.family.options.scoring = "uniform";
  PlanInput input = known.family.Input();
  const auto plan = MakePlan(input);
  for (const PlannedStatistics& used : plan->statistics) EXPECT_EQ(used, PlannedStatistics());
}

void ExpectPointIs(const SweepPoint& point, const Result<Plan>& plan) {
  if (!plan) {  // the fixed reads do not fit
    EXPECT_EQ(point.planned_bytes, 0u);
    EXPECT_EQ(point.touched_blocks, 0u);
    EXPECT_EQ(point.energy_covered, 0);
    return;
  }
  EXPECT_EQ(point.planned_bytes, plan->PlannedBytes());
  EXPECT_EQ(point.touched_blocks, plan->TouchedBlocks());
  EXPECT_EQ(point.energy_covered, EnergyCovered(*plan));
  EXPECT_EQ(point.bound, plan->bound);
}

TEST(SweepBudgets, IsThePlanAtEachBudget) {
  const std::vector<double> percents = {0, 0.5, 5, 10, 25, 50, 75, 90, 100, 150, 1e6};
  for (const double top_p : {0.3, 1.0}) {
    for (const bool summed : {false, true}) {
      Known known;
      // Many bytes beside the fingerprints.
      known.family =
          MakeFamily({{"a", DType::kF32, {1'000'000}}, {"i", DType::kU8, {5000}}}, 2, 10'000);
      known.family.options.scoring = "l2cos";
      known.family.options.top_p = top_p;
      known.statistics = Known::Random(known.family, 42);
      PlanInput input = known.Input();
      input.allow_empty = true;
      if (summed) input.coefficients = {0.5, 0.25};
      const auto points = SweepBudgets(input, percents);
      ASSERT_TRUE(points.has_value()) << points.error().ToString();
      ASSERT_EQ(points->size(), percents.size());
      for (size_t i = 0; i < percents.size(); ++i) {
        const SweepPoint& point = (*points)[i];
        EXPECT_EQ(point.percent, percents[i]);
        EXPECT_EQ(point.budget_bytes, static_cast<uint64_t>(percents[i] / 100 * 8e6));
        input.options.budget_bytes = point.budget_bytes;
        ExpectPointIs(point, MakePlan(input));
        EXPECT_EQ(point.bound.has_value(), summed && point.planned_bytes > 0);
      }
      EXPECT_LT((*points)[2].energy_covered, (*points)[4].energy_covered);
    }
  }
}

TEST(SweepBudgets, NeedsExactStatisticsOfAll) {
  Known known;
  for (const StatisticsKind kind : {StatisticsKind::kNone, StatisticsKind::kProbe}) {
    known.statistics.kinds[1] = kind;
    const auto points = SweepBudgets(known.Input(), {5});
    ASSERT_FALSE(points.has_value());
    EXPECT_EQ(points.error().kind(), ErrorKind::kUsage);
    EXPECT_TRUE(Says(points.error().ToString(), "'expert1'"));
  }
}

}  // namespace
}  // namespace mergepipe
