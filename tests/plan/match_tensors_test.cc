#include <gtest/gtest.h>

#include "plan/plan_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

std::string Problems(const Family& family) {
  const auto plan = family.MakePlan();
  if (plan) return "no error";
  EXPECT_EQ(plan.error().kind(), ErrorKind::kBadInput);
  return plan.error().ToString();
}

Family WithExpert(const std::vector<TensorSpec>& base, const std::vector<TensorSpec>& expert,
                  bool expert_tied = false) {
  Family family = MakeFamily(base, 0, 4);
  family.experts.push_back(MakeModel("math", expert, expert_tied));
  return family;
}

TEST(MatchTensors, ListsAllProblemsAtOnce) {
  Family family = WithExpert({{"gone", DType::kF32, {4}},
                              {"shape", DType::kF32, {2, 4}},
                              {"type", DType::kF32, {4}},
                              {"ids", DType::kI64, {4}}},
                             {{"shape", DType::kF32, {4, 2}},
                              {"type", DType::kI32, {4}},
                              {"ids", DType::kI32, {4}},
                              {"new", DType::kF32, {4}}});
  family.experts.push_back(MakeModel("code", {}));
  const auto plan = family.MakePlan();
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().kind(), ErrorKind::kBadInput);
  EXPECT_EQ(plan.error().problems().size(), 5u + 4u);
  const std::string text = plan.error().ToString();
  EXPECT_TRUE(Says(text, "expert 'math': tensor 'gone': is missing; pass --missing base"));
  EXPECT_TRUE(Says(text, "expert 'math': tensor 'shape': has shape [4, 2], the base has [2, 4]"));
  EXPECT_TRUE(Says(text, "expert 'math': tensor 'type': has dtype I32, the base has F32"));
  EXPECT_TRUE(Says(text, "expert 'math': tensor 'ids': has dtype I32, the base has I64"));
  EXPECT_TRUE(Says(text, "expert 'math': tensor 'new': is not in the base; pass --extra drop"));
  EXPECT_TRUE(Says(text, "expert 'code': tensor 'ids': is missing"));
}

TEST(MatchTensors, SameElementsInAnotherShapeDoNotFit) {
  EXPECT_TRUE(Says(Problems(WithExpert({{"a", DType::kF32, {6}}}, {{"a", DType::kF32, {6, 1}}})),
                   "has shape [6, 1]"));
  EXPECT_TRUE(Says(Problems(WithExpert({{"a", DType::kF32, {}}}, {{"a", DType::kF32, {1}}})),
                   "has shape [1]"));
}

TEST(MatchTensors, APolicyForgivesItsOwnProblemOnly) {
  Family family = WithExpert({{"a", DType::kF32, {4}}, {"gone", DType::kF32, {4}}},
                             {{"a", DType::kF32, {4}}, {"new", DType::kF32, {4}}});
  family.options.missing = MismatchPolicy::kBase;
  std::string text = Problems(family);
  EXPECT_TRUE(Says(text, "'new'"));
  EXPECT_FALSE(Says(text, "'gone'"));
  family.options.missing = MismatchPolicy::kError;
  family.options.extra = MismatchPolicy::kDrop;
  text = Problems(family);
  EXPECT_TRUE(Says(text, "'gone'"));
  EXPECT_FALSE(Says(text, "'new'"));
}

TEST(MatchTensors, PoliciesLeaveATrace) {
  Family family =
      WithExpert({{"a", DType::kF32, {4}}, {"half", DType::kF32, {4}}, {"gone", DType::kF32, {4}}},
                 {{"a", DType::kF32, {4}}, {"new", DType::kF32, {4}}});
  family.experts.push_back(
      MakeModel("code", {{"a", DType::kF32, {4}}, {"half", DType::kF32, {4}}}));
  family.options.missing = MismatchPolicy::kBase;
  family.options.extra = MismatchPolicy::kDrop;
  const auto plan = family.MakePlan();
  ASSERT_TRUE(plan.has_value()) << plan.error().ToString();
  ASSERT_EQ(plan->tensors.size(), 3u);
  EXPECT_EQ(plan->tensors[0].rule, TensorRule::kMerge);
  EXPECT_EQ(plan->tensors[1].rule, TensorRule::kMerge);
  EXPECT_FALSE(plan->tensors[1].sources[0].present);
  EXPECT_TRUE(plan->tensors[1].selected[0].Empty());
  EXPECT_EQ(plan->tensors[1].selected[1].Count(), 1u);
  EXPECT_EQ(plan->tensors[2].rule, TensorRule::kBase);
  EXPECT_TRUE(Says(plan->tensors[2].reason, "no expert has it"));
  ASSERT_EQ(plan->dropped.size(), 1u);
  EXPECT_EQ(plan->dropped[0].expert, 0u);
  EXPECT_EQ(plan->dropped[0].name, "new");
  EXPECT_TRUE(Says(plan->dropped[0].reason, "--extra drop"));
}

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

TEST(MatchTensors, ATiedExpertsEmbeddingStandsForItsHead) {
  const Family family =
      WithExpert({{kEmbedding, DType::kF32, {6, 2}}, {kHead, DType::kF32, {6, 2}}},
                 {{kEmbedding, DType::kBF16, {6, 2}}}, /*expert_tied=*/true);
  const auto plan = family.MakePlan();
  ASSERT_TRUE(plan.has_value()) << plan.error().ToString();
  EXPECT_EQ(plan->tensors[1].sources[0], (ExpertSource{true, kEmbedding, DType::kBF16}));
  EXPECT_EQ(plan->tensors[1].selected[0].Count(), 3u);
}

TEST(MatchTensors, AnUntiedExpertWithoutHeadLacksIt) {
  EXPECT_TRUE(
      Says(Problems(WithExpert({{kEmbedding, DType::kF32, {6, 2}}, {kHead, DType::kF32, {6, 2}}},
                               {{kEmbedding, DType::kF32, {6, 2}}})),
           "'lm_head.weight': is missing"));
}

TEST(MatchTensors, TwoEmbeddingsStandForNoHead) {
  EXPECT_TRUE(Says(Problems(WithExpert({{"a.wte.weight", DType::kF32, {6, 2}},
                                        {"b.wte.weight", DType::kF32, {6, 2}},
                                        {kHead, DType::kF32, {6, 2}}},
                                       {{"a.wte.weight", DType::kF32, {6, 2}},
                                        {"b.wte.weight", DType::kF32, {6, 2}}},
                                       /*expert_tied=*/true)),
                   "'lm_head.weight': is missing"));
}

TEST(MatchTensors, AnEmbeddingOfAnotherShapeIsNoHead) {
  EXPECT_TRUE(
      Says(Problems(WithExpert({{kEmbedding, DType::kF32, {6, 2}}, {kHead, DType::kF32, {7, 2}}},
                               {{kEmbedding, DType::kF32, {6, 2}}}, /*expert_tied=*/true)),
           "'lm_head.weight': has shape [6, 2], the base has [7, 2]"));
}

TEST(MatchTensors, AStoredHeadOfATiedExpertIsDroppedWithItsReason) {
  const std::vector<TensorSpec> base = {{kEmbedding, DType::kF32, {6, 2}}};
  const std::vector<TensorSpec> expert = {{kEmbedding, DType::kF32, {6, 2}},
                                          {kHead, DType::kF32, {6, 2}}};
  const auto plan = WithExpert(base, expert, /*expert_tied=*/true).MakePlan();
  ASSERT_TRUE(plan.has_value()) << plan.error().ToString();
  ASSERT_EQ(plan->dropped.size(), 1u);
  EXPECT_EQ(plan->dropped[0].name, kHead);
  EXPECT_TRUE(Says(plan->dropped[0].reason, "tied head"));
  // Untied, it is weights of its own.
  EXPECT_TRUE(Says(Problems(WithExpert(base, expert)), "'lm_head.weight': is not in the base"));
}

TEST(MatchTensors, FloatTypesMayDiffer) {
  Family family = WithExpert({{"a", DType::kBF16, {4}}, {"b", DType::kF32, {4}}},
                             {{"a", DType::kF32, {4}}, {"b", DType::kF16, {4}}});
  const auto same = family.MakePlan();
  ASSERT_TRUE(same.has_value()) << same.error().ToString();
  EXPECT_EQ(same->tensors[0].sources[0].dtype, DType::kF32);
  EXPECT_EQ(same->tensors[0].out_dtype, DType::kBF16);
  EXPECT_EQ(same->tensors[1].out_dtype, DType::kF32);
  EXPECT_EQ(same->merge_bytes, 4u * 4 + 4 * 2);
  family.options.out_dtype = DType::kF16;
  const auto cast = family.MakePlan();
  ASSERT_TRUE(cast.has_value());
  EXPECT_EQ(cast->tensors[0].out_dtype, DType::kF16);
  EXPECT_EQ(cast->tensors[1].out_dtype, DType::kF16);
}

// 1000 + 2 bytes of integers in each of two experts.
Family WithIntegers() {
  Family family = MakeFamily(
      {{"a", DType::kF32, {50'000}}, {"ids", DType::kI64, {125}}, {"mask", DType::kBool, {2}}}, 2,
      1000);
  family.options.out_dtype = DType::kBF16;
  return family;
}

TEST(MatchTensors, IntegersAreTheBasesAndComparedWithinOnePercentOfTheBudget) {
  Family family = WithIntegers();
  for (const bool compare : {true, false}) {
    family.options.budget_bytes = compare ? 2004u * 100 : 2004u * 100 - 1;
    const auto plan = family.MakePlan();
    ASSERT_TRUE(plan.has_value()) << plan.error().ToString();
    EXPECT_EQ(plan->compare_bytes, compare ? 2004u : 0u);
    EXPECT_LE(plan->PlannedBytes(), *family.options.budget_bytes);
    for (const size_t t : {1, 2}) {
      EXPECT_EQ(plan->tensors[t].rule, TensorRule::kBase);
      EXPECT_EQ(plan->tensors[t].compare, compare);
      EXPECT_TRUE(Says(plan->tensors[t].reason, "integer tensor"));
      EXPECT_TRUE(plan->tensors[t].selected[0].Empty());
    }
    EXPECT_FALSE(plan->tensors[0].compare);
    EXPECT_EQ(plan->tensors[1].out_dtype, DType::kI64);
  }
  family.options.budget_bytes.reset();
  EXPECT_EQ(family.MakePlan()->compare_bytes, 2004u);
}

TEST(MatchTensors, AnIntegerThatAnExpertLacksCostsNothing) {
  Family family = WithIntegers();
  family.experts[1] = MakeModel("code", {{"a", DType::kF32, {50'000}}});
  family.options.missing = MismatchPolicy::kBase;
  EXPECT_EQ(family.MakePlan()->compare_bytes, 1002u);
}

}  // namespace
}  // namespace mergepipe
