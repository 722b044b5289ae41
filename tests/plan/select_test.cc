#include <gtest/gtest.h>

#include <algorithm>

#include "plan/passes.h"
#include "plan/plan_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

// A plan before selection, and a table of made-up scores.
struct Problem {
  Family family;
  PlanInput input;
  Plan plan;
  PairTable pairs;

  Problem(const Family& of, const std::vector<double>& scores)
      : family(of), input(family.Input()), plan(Matched(input)), pairs(plan) {
    EXPECT_EQ(pairs.size(), scores.size());
    pairs.scores = scores;
  }
  static Plan Matched(const PlanInput& input) {
    Plan plan;
    plan.options = input.options;
    EXPECT_TRUE(MatchTensors(input, plan).has_value());
    EXPECT_TRUE(ReserveFixedReads(input, plan).has_value());
    return plan;
  }
};

// The best objective over all subsets of at most 16 pairs, with the real cost of each subset.
double BruteForce(const Problem& problem) {
  const Plan& plan = problem.plan;
  const uint64_t left = *plan.options.budget_bytes - plan.fingerprint_bytes - plan.compare_bytes;
  double best = 0;
  for (uint32_t subset = 0; subset < uint32_t{1} << problem.pairs.size(); ++subset) {
    std::vector<uint64_t> bytes(plan.tensors.size());
    double value = 0;
    bool allowed = true;
    for (uint32_t i = 0; i < problem.pairs.size(); ++i) {
      if (((subset >> i) & 1) == 0) continue;
      const auto pair = problem.pairs.At(i);
      const PlannedTensor& tensor = plan.tensors[pair.tensor];
      allowed = allowed && problem.pairs.scores[i] >= 0;
      value += problem.pairs.scores[i];
      bytes[pair.tensor] += tensor.BlockElements(pair.block, plan.options.block_size) *
                            DTypeSize(tensor.sources[pair.expert].dtype);
    }
    uint64_t cost = 0;
    for (const uint64_t b : bytes) {
      const bool resident = b <= plan.options.resident_bytes;
      cost += resident ? b : b * (1 + static_cast<uint64_t>(problem.input.observation_rounds));
    }
    if (allowed && cost <= left) best = std::max(best, value);
  }
  return best;
}

Problem RandomProblem(std::mt19937_64& random, bool rounds) {
  constexpr DType kTypes[] = {DType::kF64, DType::kF32, DType::kBF16};
  std::vector<TensorSpec> tensors;
  for (const char* name : {"a", "b"})
    tensors.push_back({name, kTypes[random() % 3], {1 + random() % 12}});
  Family family = MakeFamily(tensors, 2, 4);
  family.options.budget_bytes = family.Fingerprints() + 32 + random() % 200;
  family.rounds = rounds ? 2 : 0;
  family.options.resident_bytes = random() % 100;
  uint64_t pairs = 0;
  for (const TensorSpec& tensor : tensors) pairs += (tensor.shape[0] + 3) / 4 * 2;
  std::vector<double> scores;
  for (uint64_t i = 0; i < pairs; ++i) scores.push_back(static_cast<double>(random() % 20));
  if (random() % 2 == 0) scores[random() % pairs] = PairTable::kNotACandidate;
  return Problem(family, scores);
}

TEST(SelectPairs, IsWithinOneScoreOfTheBestSelection) {
  std::mt19937_64 random(4);
  for (int i = 0; i < 400; ++i) {
    Problem problem = RandomProblem(random, /*rounds=*/false);
    ASSERT_TRUE(SelectPairs(problem.input, problem.pairs, problem.plan).has_value());
    const double best = BruteForce(problem);
    const double largest = *std::ranges::max_element(problem.pairs.scores);
    ASSERT_LE(problem.plan.objective, best);
    ASSERT_GE(problem.plan.objective, best - largest);
    ASSERT_GE(problem.plan.objective_bound, best * (1 - 1e-12));
    ASSERT_LE(problem.plan.objective_bound, problem.plan.objective + largest + 1e-9);
  }
}

TEST(SelectPairs, ItsBoundHoldsWithRepeatedReadsToo) {
  std::mt19937_64 random(5);
  int planned = 0;
  for (int i = 0; i < 400; ++i) {
    Problem problem = RandomProblem(random, /*rounds=*/true);
    const double best = BruteForce(problem);
    if (!SelectPairs(problem.input, problem.pairs, problem.plan)) continue;
    ++planned;
    ASSERT_LE(problem.plan.objective, best);
    ASSERT_GE(problem.plan.objective_bound, best * (1 - 1e-12));
    ASSERT_TRUE(ValidatePlan(problem.plan, 2).has_value());
  }
  EXPECT_GT(planned, 200);
}

// Two experts (F32), two blocks of 4 in each of two tensors: 16 bytes a pair.
Family EqualPairs(uint64_t pairs_that_fit) {
  Family family = MakeFamily({{"a", DType::kF32, {8}}, {"b", DType::kF32, {8}}}, 2, 4);
  family.options.budget_bytes = family.Fingerprints() + 16 * pairs_that_fit;
  return family;
}

TEST(SelectPairs, BreaksTiesByTensorThenBlockThenExpert) {
  Problem problem(EqualPairs(3), {5, 5, 5, 5, 5, 5, 5, 5});
  ASSERT_TRUE(SelectPairs(problem.input, problem.pairs, problem.plan).has_value());
  EXPECT_EQ(problem.plan.tensors[0].selected[0].ToText(), "0-1");
  EXPECT_EQ(problem.plan.tensors[0].selected[1].ToText(), "0");
  EXPECT_EQ(problem.plan.tensors[1].Touched(4).Count(), 0u);
}

TEST(SelectPairs, TakesTheBestFirstAndZerosLast) {
  Problem problem(EqualPairs(3), {0, 0, 0, 2, 0, 9, 1, 0});
  ASSERT_TRUE(SelectPairs(problem.input, problem.pairs, problem.plan).has_value());
  EXPECT_EQ(problem.plan.objective, 12.0);
  EXPECT_EQ(problem.plan.objective_bound, 12.0);
  EXPECT_EQ(problem.plan.tensors[0].selected[1].ToText(), "1");
  EXPECT_EQ(problem.plan.tensors[1].selected[0].ToText(), "1");
  EXPECT_EQ(problem.plan.tensors[1].selected[1].ToText(), "0");
}

TEST(SelectPairs, NeverTakesWhatIsNoCandidate) {
  const double no = PairTable::kNotACandidate;
  Problem problem(EqualPairs(8), {no, 1, no, 1, no, no, no, 0});
  ASSERT_TRUE(SelectPairs(problem.input, problem.pairs, problem.plan).has_value());
  EXPECT_EQ(problem.plan.tensors[0].selected[0].ToText(), "");
  EXPECT_EQ(problem.plan.tensors[0].selected[1].ToText(), "0-1");
  EXPECT_EQ(problem.plan.tensors[1].selected[0].ToText(), "");
  EXPECT_EQ(problem.plan.tensors[1].selected[1].ToText(), "1");
}

TEST(LimitTouchedBlocks, KeepsTheLargestSumsAndTheFirstOfEquals) {
  Family family = EqualPairs(8);
  family.options.top_p = 0.5;
  Problem problem(family, {3, 0, 1, 1, 1, 2, 0, 4});
  ASSERT_TRUE(LimitTouchedBlocks(problem.plan, problem.pairs).has_value());
  const double no = PairTable::kNotACandidate;
  EXPECT_EQ(problem.pairs.scores, (std::vector<double>{3, 0, no, no, no, no, 0, 4}));
}

TEST(ValidatePlan, NoticesWhatDoesNotAddUp) {
  Problem problem(EqualPairs(8), {1, 1, 1, 1, 1, 1, 1, 1});
  ASSERT_TRUE(SelectPairs(problem.input, problem.pairs, problem.plan).has_value());
  ASSERT_TRUE(ValidatePlan(problem.plan, 0).has_value());
  const auto refused = [&](auto&& change) {
    Plan plan = problem.plan;
    change(plan);
    const Status status = ValidatePlan(plan, 0);
    return !status && status.error().kind() == ErrorKind::kInternal;
  };
  EXPECT_TRUE(refused([](Plan& plan) { plan.merge_bytes -= 1; }));
  EXPECT_TRUE(refused([](Plan& plan) { plan.tensors[0].reads = 2; }));
  EXPECT_TRUE(refused([](Plan& plan) { plan.tensors[0].sources[0].present = false; }));
  EXPECT_TRUE(refused([](Plan& plan) { plan.tensors[0].rule = TensorRule::kBase; }));
  EXPECT_TRUE(refused([](Plan& plan) { plan.tensors[1].selected[1].Remove(BlockIndex(0)); }));
  EXPECT_TRUE(refused([](Plan& plan) { *plan.options.budget_bytes -= 1; }));
  EXPECT_TRUE(refused([](Plan& plan) { plan.options.top_p = 0.5; }));
}

}  // namespace
}  // namespace mergepipe
