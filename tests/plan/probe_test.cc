#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>

#include "plan/passes.h"
#include "plan/plan_fixture.h"
#include "plan/tensor_deltas.h"

namespace mergepipe {
namespace {

using namespace test;

uint64_t BlocksOf(const TensorInfo& tensor, uint64_t block_size) {
  return (tensor.elements() + block_size - 1) / block_size;
}

uint64_t ElementsOf(const TensorInfo& tensor, uint64_t block, uint64_t block_size) {
  return std::min(block_size, tensor.elements() - block * block_size);
}

// Tensors large enough that samples are parts of blocks; some are missing in some experts, some are
// integers, and there may be few statistics.
Family LargeFamily(std::mt19937_64& random) {
  constexpr DType kFloats[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16};
  std::vector<TensorSpec> base;
  for (uint64_t t = 0; t <= random() % 7; ++t) {
    TensorSpec tensor{"t" + std::to_string(t), kFloats[random() % 4], {random() % 300, 1000}};
    if (random() % 6 == 0) tensor = {tensor.name, DType::kU8, {random() % 40'000}};
    base.push_back(tensor);
  }
  constexpr uint64_t kBlockSizes[] = {1000, 20'000, 100'000};
  Family family = MakeFamily(base, 0, kBlockSizes[random() % 3] + random() % 1000);
  for (size_t k = 0; k <= random() % 4; ++k) {
    std::vector<TensorSpec> tensors;
    for (TensorSpec tensor : base) {
      if (random() % 6 == 0) continue;
      if (IsFloat(tensor.dtype) && random() % 4 == 0) tensor.dtype = kFloats[random() % 4];
      tensors.push_back(tensor);
    }
    family.experts.push_back(MakeModel("expert" + std::to_string(k), tensors));
  }
  family.options.missing = MismatchPolicy::kBase;
  family.options.scoring = random() % 2 == 0 ? "l2cos" : "abs";
  if (random() % 2 == 0) family.options.top_p = static_cast<double>(1 + random() % 100) / 100;
  family.options.resident_bytes = random() % 2 == 0 ? uint64_t{1} << 40 : random() % kMiB;
  family.rounds = static_cast<int>(random() % 3);
  return family;
}

bool Has(const ModelRecord& model, const std::string& name) {
  return std::ranges::any_of(model.layout.tensors,
                             [&](const TensorInfo& tensor) { return tensor.name == name; });
}

DType TypeIn(const ModelRecord& model, const std::string& name) {
  return std::ranges::find_if(model.layout.tensors,
                              [&](const TensorInfo& tensor) { return tensor.name == name; })
      ->dtype;
}

// Bytes of every sample, from the definition.
uint64_t PlainProbeBytes(const Family& family, const std::vector<uint32_t>& experts,
                         uint64_t stride) {
  uint64_t bytes = 0;
  uint64_t number = 0;
  for (const TensorInfo& tensor : family.base.layout.tensors) {
    if (!IsFloat(tensor.dtype)) continue;
    for (uint64_t b = 0; b < BlocksOf(tensor, family.options.block_size); ++b) {
      if (number++ % stride != 0) continue;
      const uint64_t count = std::min(ElementsOf(tensor, b, family.options.block_size),
                                      16384 / DTypeSize(tensor.dtype));
      for (const uint32_t k : experts) {
        if (Has(family.experts[k], tensor.name))
          bytes += count * DTypeSize(TypeIn(family.experts[k], tensor.name));
      }
    }
  }
  return bytes;
}

std::vector<uint32_t> RandomExperts(const Family& family, std::mt19937_64& random) {
  std::vector<uint32_t> experts;
  for (uint32_t k = 0; k < family.experts.size(); ++k) {
    if (experts.empty() || random() % 2 == 0) experts.push_back(k);
  }
  return experts;
}

TEST(ProbeSample, IsInTheMiddleOfTheBlock) {
  EXPECT_EQ(ProbeSample(640'000, DType::kBF16), (BlockSample{315'904, 8192}));
  EXPECT_EQ(ProbeSample(640'000, DType::kF32), (BlockSample{317'952, 4096}));
  EXPECT_EQ(ProbeSample(4097, DType::kF32), (BlockSample{0, 4096}));
  EXPECT_EQ(ProbeSample(4096, DType::kF32), (BlockSample{0, 4096}));
  EXPECT_EQ(ProbeSample(5, DType::kF64), (BlockSample{0, 5}));
}

TEST(ProbeNumbering, CountsBlocksOfFloatTensorsInFileOrder) {
  const ModelRecord base = MakeModel("base", {{"a", DType::kF32, {25}},
                                              {"ids", DType::kI32, {1000}},
                                              {"none", DType::kF32, {0}},
                                              {"b", DType::kBF16, {}},
                                              {"c", DType::kF64, {4, 10}}});
  const ProbeNumbering numbering(base.layout, 10);
  EXPECT_EQ(numbering.Count(), 8u);
  EXPECT_EQ(numbering.FirstNumber(3), 3u);
  EXPECT_EQ(numbering.FirstNumber(4), 4u);
  for (const auto& [number, tensor] :
       std::initializer_list<std::pair<uint64_t, uint32_t>>{{0, 0}, {2, 0}, {3, 3}, {4, 4}, {7, 4}})
    EXPECT_EQ(numbering.TensorOf(number), tensor) << number;
  EXPECT_EQ(numbering.Probed(0, 1).ToText(), "0-2");
  EXPECT_EQ(numbering.Probed(0, 2).ToText(), "0,2");
  EXPECT_EQ(numbering.Probed(1, 1).size(), 0u);
  EXPECT_EQ(numbering.Probed(3, 2).ToText(), "");
  EXPECT_EQ(numbering.Probed(4, 2).ToText(), "0,2");
  EXPECT_EQ(numbering.Probed(4, 5).ToText(), "1");
  EXPECT_EQ(numbering.Probed(4, 100).ToText(), "");
}

TEST(PlanProbe, IsTheFinestWithinAnEighthOfTheBudget) {
  std::mt19937_64 random(21);
  int coarse = 0;
  for (int i = 0; i < 150; ++i) {
    Family family = LargeFamily(random);
    const auto experts = RandomExperts(family, random);
    const uint64_t all = PlainProbeBytes(family, experts, 1);
    family.options.budget_bytes = family.Fingerprints() + 100 + random() % (9 * all + 1);
    const PlanInput input = family.Input();
    const auto probe = PlanProbe(input, *StartPlan(input), experts);
    if (!probe) continue;
    ASSERT_EQ(probe->bytes, PlainProbeBytes(family, experts, probe->stride));
    ASSERT_LE(probe->bytes, *family.options.budget_bytes / 8);
    for (uint64_t stride = 1; stride < probe->stride; ++stride)
      ASSERT_GT(PlainProbeBytes(family, experts, stride), *family.options.budget_bytes / 8);
    coarse += probe->stride > 1 ? 1 : 0;
  }
  EXPECT_GT(coarse, 50);
}

TEST(PlanProbe, TakesEveryBlockWithoutABudget) {
  std::mt19937_64 random(22);
  const Family family = LargeFamily(random);
  const PlanInput input = family.Input();
  const auto probe = PlanProbe(input, *StartPlan(input), {0});
  EXPECT_EQ(probe->stride, 1u);
  EXPECT_EQ(probe->bytes, PlainProbeBytes(family, {0}, 1));
}

TEST(PlanProbe, IsRefusedWhereTheFixedReadsLeaveNoRoom) {
  Family family = MakeFamily({{"a", DType::kF32, {100'000}}}, 1, 1000);
  family.options.scoring = "l2";
  family.options.budget_bytes = family.Fingerprints() + 4000;  // an eighth would do for a probe
  PlanInput input = family.Input();
  const auto probe = PlanProbe(input, *StartPlan(input), {0});
  ASSERT_FALSE(probe.has_value());
  EXPECT_TRUE(Says(probe.error().ToString(), "too small to read a probe and a block"));
  input.allow_empty = true;
  EXPECT_EQ(PlanProbe(input, *StartPlan(input), {0})->stride, 0u);
}

// What is known of an expert's block, looked up plainly: the last probed block of this expert at or
// before it.
struct PlainProbe {
  const BlockStatistics* statistics = nullptr;
  double sampled = 0;
};

void ExpectDeltas(const Family& family, FakeStatistics& statistics) {
  PlanInput input = family.Input(&statistics);
  Plan plan = *StartPlan(input);
  plan.probe_stride = statistics.stride;
  DeltaReader reader(input, plan);
  std::vector<PlainProbe> carried(family.experts.size());
  uint64_t number = 0;
  for (uint32_t t = 0; t < plan.tensors.size(); ++t) {
    const TensorInfo& tensor = family.base.layout.tensors[t];
    const bool merged = plan.tensors[t].rule == TensorRule::kMerge;
    if (merged) {
      ASSERT_TRUE(reader.Load(t).has_value());
    }
    for (uint64_t b = 0; IsFloat(tensor.dtype) && b < BlocksOf(tensor, family.options.block_size);
         ++b, ++number) {
      if (!merged) continue;
      const auto known = reader.Block(b);
      const auto elements = static_cast<double>(ElementsOf(tensor, b, family.options.block_size));
      for (uint32_t k = 0; k < known.size(); ++k) {
        const BlockStatistics& own = statistics.stored[k][t][b];
        if (!Has(family.experts[k], tensor.name) || statistics.kinds[k] == StatisticsKind::kNone) {
          ASSERT_EQ(known[k].kind, StatisticsKind::kNone);
          ASSERT_EQ(known[k].sum_squares, 0);
          ASSERT_EQ(known[k].sketch, nullptr);
          continue;
        }
        ASSERT_EQ(known[k].kind, statistics.kinds[k]);
        ASSERT_EQ(static_cast<double>(known[k].elements), elements);
        if (statistics.kinds[k] == StatisticsKind::kExact) {
          ASSERT_EQ(known[k].sum_squares, own.sum_squares);
          ASSERT_EQ(*known[k].sketch, own.sketch);
          ASSERT_EQ(reader.Equal(k, b), own.nonzeros == 0);
          continue;
        }
        ASSERT_FALSE(reader.Equal(k, b));  // a sample proves nothing
        if (number % statistics.stride == 0) {
          const auto samples = 16384.0 / static_cast<double>(DTypeSize(tensor.dtype));
          carried[k] = {&own, std::min(elements, samples)};
        }
        if (carried[k].statistics == nullptr) {
          ASSERT_EQ(known[k].sum_squares, 0);
          continue;
        }
        ASSERT_DOUBLE_EQ(known[k].sum_squares,
                         carried[k].statistics->sum_squares * elements / carried[k].sampled);
        ASSERT_EQ(known[k].max_abs, static_cast<double>(carried[k].statistics->max_abs));
        ASSERT_EQ(*known[k].sketch, carried[k].statistics->sketch);
      }
    }
  }
}

TEST(DeltaReader, CarriesAProbeOnToTheBlocksThatFollow) {
  std::mt19937_64 random(23);
  constexpr StatisticsKind kKinds[] = {StatisticsKind::kNone, StatisticsKind::kExact,
                                       StatisticsKind::kProbe, StatisticsKind::kProbe};
  for (int i = 0; i < 200; ++i) {
    const Family family = LargeFamily(random);
    FakeStatistics statistics = RandomStatistics(family, random);
    for (StatisticsKind& kind : statistics.kinds) kind = kKinds[random() % 4];
    statistics.stride = 1 + random() % 30;
    ASSERT_NO_FATAL_FAILURE(ExpectDeltas(family, statistics)) << i;
  }
}

TEST(DeltaReader, RefusesStatisticsOfAnotherNumberOfBlocks) {
  const Family family = MakeFamily({{"a", DType::kF32, {100}}}, 1, 10);
  FakeStatistics statistics(family);
  statistics.stored[0][0].pop_back();
  const auto plan = MakePlan(family.Input(&statistics));
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().kind(), ErrorKind::kInternal);
  EXPECT_TRUE(Says(plan.error().ToString(), "9 blocks, not 10"));
}

TEST(ReserveProbe, ChargesWhatPlanProbeSays) {
  Family family =
      MakeFamily({{"a", DType::kF32, {1'000'000}}, {"b", DType::kBF16, {300'000}}}, 3, 10'000);
  family.options.scoring = "l2cos";
  family.options.budget_bytes = 3 * kMiB;
  FakeStatistics statistics(family);
  statistics.kinds = {StatisticsKind::kNone, StatisticsKind::kExact, StatisticsKind::kNone};
  const PlanInput input = family.Input(&statistics);
  const auto plan = ProbeAndPlan(input, statistics);
  ASSERT_TRUE(plan.has_value()) << plan.error().ToString();
  const uint64_t stride = statistics.stride;
  EXPECT_EQ(plan->probe_stride, stride);
  EXPECT_EQ(plan->probe_bytes, PlainProbeBytes(family, {0, 2}, stride));
  EXPECT_LE(plan->probe_bytes, 3 * kMiB / 8);
  EXPECT_GT(PlainProbeBytes(family, {0, 2}, stride - 1), 3 * kMiB / 8);
  EXPECT_EQ(plan->statistics[0].kind, StatisticsKind::kProbe);
  EXPECT_EQ(plan->statistics[1].kind, StatisticsKind::kExact);
}

uint64_t RemedyMiB(const std::string& remedy) {
  constexpr std::string_view kBefore = "give at least ";
  uint64_t number = 0;
  EXPECT_TRUE(remedy.starts_with(kBefore)) << remedy;
  std::from_chars(remedy.data() + kBefore.size(), remedy.data() + remedy.size(), number);
  return number;
}

FakeStatistics SomeKnown(const Family& family, std::mt19937_64& random) {
  FakeStatistics statistics = RandomStatistics(family, random);
  for (StatisticsKind& kind : statistics.kinds) {
    if (random() % 2 == 0) kind = StatisticsKind::kNone;
  }
  return statistics;
}

TEST(BudgetTooSmall, NamesABudgetThatWorks) {
  std::mt19937_64 random(24);
  int refused = 0;
  int probes = 0;
  for (int i = 0; i < 6000; ++i) {
    Family family = LargeFamily(random);
    family.options.budget_bytes = random() % (uint64_t{1} << (8 + random() % 15));
    const FakeStatistics known = SomeKnown(family, random);
    FakeStatistics statistics = known;
    const auto plan = ProbeAndPlan(family.Input(&statistics), statistics);
    if (plan) continue;
    ASSERT_EQ(plan.error().kind(), ErrorKind::kUsage) << plan.error().ToString();
    ++refused;
    const uint64_t enough = RemedyMiB(plan.error().problems().front().remedy) * kMiB;
    ASSERT_GT(enough, *family.options.budget_bytes);
    family.options.budget_bytes = enough;
    statistics = known;
    const auto better = ProbeAndPlan(family.Input(&statistics), statistics);
    ASSERT_TRUE(better.has_value())
        << i << ": " << plan.error().ToString() << "\nbut " << better.error().ToString();
    probes += better->probe_bytes > 0 ? 1 : 0;
    // What is known may all be equal to the base; what is not known is read.
    const bool anything = std::ranges::any_of(better->tensors, [&](const PlannedTensor& tensor) {
      bool unknown = false;
      for (size_t k = 0; k < known.kinds.size(); ++k)
        unknown |= tensor.sources[k].present && known.kinds[k] == StatisticsKind::kNone;
      return unknown && tensor.rule == TensorRule::kMerge && tensor.elements() > 0;
    });
    if (anything) {
      ASSERT_GT(better->merge_bytes, 0u) << i;
    }
  }
  EXPECT_GT(refused, 1500);
  EXPECT_GT(probes, 200);
}

TEST(BudgetTooSmall, CountsTheFirstBlockOfManyExperts) {
  // A probe takes 40 * 16 KiB at least, as much as all blocks together.
  Family family = MakeFamily({{"a", DType::kBF16, {8192}}}, 40, 8192);
  family.options.scoring = "l2";
  family.options.budget_bytes = kMiB;
  FakeStatistics statistics(family);
  statistics.kinds.assign(40, StatisticsKind::kNone);
  const auto refused = ProbeAndPlan(family.Input(&statistics), statistics);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(RemedyMiB(refused.error().problems().front().remedy), 5u);
  family.options.budget_bytes = 5 * kMiB;
  family.options.top_p = 0.5;  // else it would be enough for everything
  EXPECT_GT(ProbeAndPlan(family.Input(&statistics), statistics)->probe_bytes, 0u);
}

TEST(BudgetTooSmall, AllowEmptyPlansToReadNothing) {
  std::mt19937_64 random(25);
  int empty = 0;
  for (int i = 0; i < 500; ++i) {
    Family family = LargeFamily(random);
    family.options.budget_bytes = family.Fingerprints() + random() % 20'000;
    FakeStatistics statistics = SomeKnown(family, random);
    PlanInput input = family.Input(&statistics);
    input.allow_empty = true;
    const auto plan = ProbeAndPlan(input, statistics);
    ASSERT_TRUE(plan.has_value()) << i << ": " << plan.error().ToString();
    ASSERT_LE(plan->PlannedBytes(), *family.options.budget_bytes);
    empty += plan->TouchedBlocks() == 0 ? 1 : 0;
  }
  EXPECT_GT(empty, 100);
}

TEST(BudgetTooSmall, AllowEmptyDoesNotPayForFixedReads) {
  Family family = MakeFamily({{"a", DType::kF32, {100'000}}}, 1, 1000);
  family.options.budget_bytes = family.Fingerprints() - 1;
  PlanInput input = family.Input();
  input.allow_empty = true;
  const auto plan = MakePlan(input);
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().problems().front().remedy, "give at least 1 MiB");
}

TEST(BudgetTooSmall, SaysWhatIsEnoughWithoutAnythingToMerge) {
  Family family = MakeFamily({{"ids", DType::kI64, {100'000}}}, 2, 1000);
  family.options.budget_bytes = 10;
  const auto plan = family.MakePlan();
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().problems().front().remedy, "give at least 1 MiB");
}

}  // namespace
}  // namespace mergepipe
