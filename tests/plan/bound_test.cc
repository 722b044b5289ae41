#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "mergepipe/kernels/convert.h"
#include "mergepipe/kernels/output.h"
#include "plan/passes.h"
#include "plan/plan_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

constexpr DType kFloats[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16};
using Stored = std::vector<std::byte>;

std::vector<float> Floats(DType dtype, const Stored& stored) {
  std::vector<float> values(stored.size() / DTypeSize(dtype));
  ToFloat(dtype, stored, values);
  return values;
}

// As the double that the stored value is.
std::vector<double> Doubles(DType dtype, const Stored& stored) {
  if (dtype != DType::kF64) {
    const auto values = Floats(dtype, stored);
    return {values.begin(), values.end()};
  }
  std::vector<double> values(stored.size() / sizeof(double));
  std::ranges::copy(stored, std::as_writable_bytes(std::span(values)).begin());
  return values;
}

// A base, its experts and their weights, with true statistics, merged as a weighted sum.
struct Weights {
  Family family;
  std::vector<float> coefficients;  // a_k
  float lambda = 1;
  std::vector<Stored> base;                  // by tensor
  std::vector<std::vector<Stored>> experts;  // by expert and tensor; empty if it is missing
  FakeStatistics statistics;

  explicit Weights(Family of)
      : family(std::move(of)),
        coefficients(family.experts.size(), 1.0f / static_cast<float>(family.experts.size())),
        base(family.base.layout.tensors.size()),
        experts(family.experts.size(), std::vector<Stored>(base.size())),
        statistics(family) {}

  const TensorInfo& Tensor(size_t t) const { return family.base.layout.tensors[t]; }

  // D_k of a tensor in float32.
  std::vector<float> Delta(size_t k, size_t t) const {
    const auto* tensor = TensorOf(family.experts[k], Tensor(t).name);
    auto delta = Floats(tensor->dtype, experts[k][t]);
    const auto from = Floats(Tensor(t).dtype, base[t]);
    for (size_t i = 0; i < delta.size(); ++i) delta[i] -= from[i];
    return delta;
  }

  static const TensorInfo* TensorOf(const ModelRecord& model, const std::string& name) {
    for (const TensorInfo& tensor : model.layout.tensors) {
      if (tensor.name == name) return &tensor;
    }
    return nullptr;
  }

  void TakeStatistics() {
    for (size_t t = 0; t < base.size(); ++t) {
      const auto values = Floats(Tensor(t).dtype, base[t]);
      ForEachElement(t, [&](size_t block, size_t i) {
        statistics.base[t][block].sum_squares += double{values[i]} * double{values[i]};
      });
      for (size_t k = 0; k < experts.size(); ++k) {
        if (!experts[k][t].empty()) TakeStatistics(k, t);
      }
    }
  }

  PlanInput Input() {
    family.options.strategy.lambda = double{lambda};
    PlanInput input = family.Input(&statistics);
    input.coefficients.emplace();
    for (const float coefficient : coefficients)
      input.coefficients->push_back(std::abs(double{coefficient} * double{lambda}));
    return input;
  }

  // The output of a plan, or of the full read.
  std::vector<double> Merge(const Plan& plan, size_t t, bool full) const {
    std::vector<float> merged(Tensor(t).elements(), 0.0f);
    for (size_t k = 0; k < experts.size(); ++k) {
      if (experts[k][t].empty()) continue;
      const auto delta = Delta(k, t);
      ForEachElement(t, [&](size_t block, size_t i) {
        if (full || plan.tensors[t].selected[k].Contains(BlockIndex(block)))
          merged[i] += coefficients[k] * delta[i];
      });
    }
    for (float& value : merged) value *= lambda;
    const DType dtype = Tensor(t).dtype;
    const DType out_dtype = plan.tensors[t].out_dtype;
    const auto values = Floats(dtype, base[t]);
    Stored out(merged.size() * DTypeSize(out_dtype));
    WriteMerged({dtype, base[t]}, merged, out_dtype, out);
    return Doubles(out_dtype, out);
  }

  double Distance(const Plan& plan) const {
    double sum = 0;
    for (size_t t = 0; t < base.size(); ++t) {
      const auto part = Merge(plan, t, /*full=*/false);
      const auto full = Merge(plan, t, /*full=*/true);
      for (size_t i = 0; i < part.size(); ++i) sum += (part[i] - full[i]) * (part[i] - full[i]);
    }
    return std::sqrt(sum);
  }

  // ErrorBound::unread from the deltas.
  double Unread(const Plan& plan) const {
    double total = 0;
    for (size_t t = 0; t < base.size(); ++t) {
      std::vector<double> sums(statistics.Blocks(static_cast<uint32_t>(t)));
      for (size_t k = 0; k < experts.size(); ++k) {
        if (experts[k][t].empty()) continue;
        const auto delta = Delta(k, t);
        std::vector<double> squares(sums.size());
        ForEachElement(t, [&](size_t block, size_t i) {
          squares[block] += double{delta[i]} * double{delta[i]};
        });
        for (size_t block = 0; block < sums.size(); ++block) {
          if (!plan.tensors[t].selected[k].Contains(BlockIndex(block)))
            sums[block] +=
                std::abs(double{coefficients[k]} * double{lambda}) * std::sqrt(squares[block]);
        }
      }
      for (const double sum : sums) total += sum * sum;
    }
    return std::sqrt(total);
  }

 private:
  template <typename Visit>
  void ForEachElement(size_t t, Visit&& visit) const {
    for (size_t i = 0; i < Tensor(t).elements(); ++i) visit(i / family.options.block_size, i);
  }

  void TakeStatistics(size_t k, size_t t) {
    const auto delta = Delta(k, t);
    ForEachElement(t, [&](size_t block, size_t i) {
      BlockStatistics& known = statistics.stored[k][t][block];
      known.nonzeros += delta[i] == 0 ? 0 : 1;
      if (std::isfinite(delta[i])) {
        known.sum_squares += double{delta[i]} * double{delta[i]};
        known.max_abs = std::max(known.max_abs, std::abs(delta[i]));
      } else {
        known.max_abs = std::numeric_limits<float>::infinity();
      }
    });
  }
};

class Maker {
 public:
  explicit Maker(uint64_t seed) : random_(seed) {}

  uint64_t Below(uint64_t n) { return random_() % n; }
  double Normal() { return normal_(random_); }

  Stored Store(DType dtype, const std::vector<double>& values) {
    Stored stored(values.size() * DTypeSize(dtype));
    if (dtype == DType::kF64) {
      std::ranges::copy(std::as_bytes(std::span(values)), stored.begin());
    } else {
      const std::vector<float> floats(values.begin(), values.end());
      FromFloat(dtype, floats, stored);
    }
    return stored;
  }

  // Base values and deltas of any scale, below the types' normal ranges too; some blocks are equal
  // to the base's.
  void Fill(Weights& weights) {
    for (size_t t = 0; t < weights.base.size(); ++t) {
      const TensorInfo& tensor = weights.Tensor(t);
      const double scale = std::pow(10.0, -static_cast<double>(Below(tiny_ ? 45 : 3)));
      std::vector<double> base(tensor.elements());
      for (double& value : base) value = Normal() * scale;
      weights.base[t] = Store(tensor.dtype, base);
      const auto from = Doubles(tensor.dtype, weights.base[t]);
      for (size_t k = 0; k < weights.experts.size(); ++k) {
        const auto* own = Weights::TensorOf(weights.family.experts[k], tensor.name);
        if (own == nullptr) continue;
        weights.experts[k][t] = Store(own->dtype, Expert(weights, from, scale));
      }
    }
    weights.TakeStatistics();
  }

  Family RandomShapes() {
    std::vector<TensorSpec> base;
    for (uint64_t t = 1 + Below(4); t > 0; --t)
      base.push_back({"t" + std::to_string(t), kFloats[Below(4)], {Below(400)}});
    Family family = MakeFamily(base, 0, 1 + Below(80));
    for (uint64_t k = 1 + Below(5); k > 0; --k) {
      std::vector<TensorSpec> tensors;
      for (TensorSpec tensor : base) {
        if (Below(8) == 0) continue;
        if (Below(5) == 0) tensor.dtype = kFloats[Below(4)];
        tensors.push_back(tensor);
      }
      family.experts.push_back(MakeModel("expert" + std::to_string(k), tensors));
    }
    family.options.missing = MismatchPolicy::kBase;
    family.options.scoring = Below(2) == 0 ? "l2cos" : "l2";
    if (Below(2) == 0) family.options.top_p = static_cast<double>(1 + Below(100)) / 100;
    if (Below(3) == 0) family.options.out_dtype = kFloats[Below(4)];
    family.options.budget_bytes = family.Fingerprints() + Below(5000);
    return family;
  }

  bool tiny_ = false;

 private:
  std::vector<double> Expert(const Weights& weights, const std::vector<double>& from,
                             double scale) {
    std::vector<double> values = from;
    const double delta = scale * std::pow(10.0, -static_cast<double>(Below(4)));
    bool equal = false;
    for (size_t i = 0; i < values.size(); ++i) {
      if (i % weights.family.options.block_size == 0) equal = Below(4) == 0;
      if (!equal) values[i] += Normal() * delta;
    }
    return values;
  }

  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
};

Weights RandomWeights(Maker& make) {
  Weights weights(make.RandomShapes());
  for (float& coefficient : weights.coefficients)
    coefficient = make.Below(8) == 0 ? 0.0f : static_cast<float>(make.Normal());
  weights.lambda = static_cast<float>(std::pow(10.0, static_cast<double>(make.Below(5)) - 2));
  if (make.Below(4) == 0) weights.lambda = -weights.lambda;
  make.Fill(weights);
  return weights;
}

void ExpectBoundHolds(Maker& make, int& bounded, int& close) {
  Weights weights = RandomWeights(make);
  PlanInput input = weights.Input();
  input.allow_empty = true;
  const auto plan = MakePlan(input);
  ASSERT_TRUE(plan.has_value()) << plan.error().ToString();
  ASSERT_TRUE(plan->bound.has_value());
  const ErrorBound& bound = *plan->bound;
  const double distance = weights.Distance(*plan);
  ASSERT_LE(distance, bound.total);
  ASSERT_LE(bound.total, (bound.unread + bound.rounding) * (1 + 1e-9));
  ASSERT_GE(bound.total, std::max(bound.unread, bound.rounding) * (1 - 1e-9));
  const double unread = weights.Unread(*plan);
  ASSERT_NEAR(bound.unread, unread, 1e-8 * unread);
  bounded += bound.total > 0 ? 1 : 0;
  close += distance > bound.total / 3 ? 1 : 0;
}

TEST(ErrorBound, IsNeverLessThanTheDistance) {
  Maker make(31);
  int bounded = 0;
  int close = 0;
  for (int i = 0; i < 2000; ++i)
    ASSERT_NO_FATAL_FAILURE(ExpectBoundHolds(make, bounded, close)) << i;
  EXPECT_GT(bounded, 1200);
  EXPECT_GT(close, 800);
}

TEST(ErrorBound, HoldsBelowTheNormalRangeOfEveryType) {
  Maker make(32);
  make.tiny_ = true;
  int bounded = 0;
  int close = 0;
  for (int i = 0; i < 2000; ++i)
    ASSERT_NO_FATAL_FAILURE(ExpectBoundHolds(make, bounded, close)) << i;
  EXPECT_GT(bounded, 1000);
}

// Experts that differ from the base in blocks of their own.
Weights Disjoint(Maker& make, DType dtype) {
  const uint64_t experts = 1 + make.Below(4);
  Family family = MakeFamily({{"a", dtype, {1000}}, {"b", dtype, {333}}}, experts, 50);
  family.options.scoring = "l2cos";
  family.options.budget_bytes =
      family.Fingerprints() + (1 + make.Below(26)) * 50 * DTypeSize(dtype);
  Weights weights(std::move(family));
  for (size_t t = 0; t < 2; ++t) {
    std::vector<double> base(weights.Tensor(t).elements());
    for (double& value : base) value = make.Normal() * 0.02;
    weights.base[t] = make.Store(dtype, base);
    const auto from = Doubles(dtype, weights.base[t]);
    for (size_t k = 0; k < experts; ++k) {
      std::vector<double> values = from;
      for (size_t i = 0; i < values.size(); ++i) {
        if (i / 50 % experts == k) values[i] += make.Normal() * 0.01;
      }
      weights.experts[k][t] = make.Store(dtype, values);
    }
  }
  weights.TakeStatistics();
  return weights;
}

TEST(ErrorBound, IsWithinTwiceTheDistanceForDisjointDeltas) {
  Maker make(33);
  int compared = 0;
  for (int i = 0; i < 300; ++i) {
    Weights weights = Disjoint(make, i % 2 == 0 ? DType::kF32 : DType::kF16);
    const auto plan = MakePlan(weights.Input());
    ASSERT_TRUE(plan.has_value()) << plan.error().ToString();
    const double distance = weights.Distance(*plan);
    ASSERT_LE(distance, plan->bound->total);
    ASSERT_LE(plan->bound->total, 2 * distance);
    compared += distance > 0 ? 1 : 0;
  }
  EXPECT_GT(compared, 250);
}

TEST(ErrorBound, CountsTheRoundingOfBothOutputs) {
  Family family = MakeFamily({{"a", DType::kBF16, {1}}}, 0, 1);
  for (const char* id : {"read", "unread"})
    family.experts.push_back(MakeModel(id, {{"a", DType::kF32, {1}}}));
  family.options.scoring = "l2";
  family.options.budget_bytes = family.Fingerprints() + 4;
  Weights weights(std::move(family));
  weights.coefficients = {1, 1};
  Maker make(35);
  weights.base[0] = make.Store(DType::kBF16, {1});
  weights.experts[0][0] = make.Store(DType::kF32, {1 + 0x1p-8 - 0x1p-20});  // merged: down to 1
  weights.experts[1][0] = make.Store(DType::kF32, {1 + 0x1p-19});           // with it: up
  weights.TakeStatistics();
  const auto plan = MakePlan(weights.Input());
  ASSERT_EQ(plan->tensors[0].selected[1].ToText(), "");
  EXPECT_EQ(weights.Distance(*plan), 0x1p-7);
  EXPECT_LE(0x1p-7, plan->bound->total);
}

// A family with something unread and a bound.
Weights Small(DType dtype = DType::kF32) {
  Family family = MakeFamily({{"a", dtype, {100}}}, 2, 10);
  family.options.scoring = "l2";
  family.options.top_p = 0.5;
  Weights weights(std::move(family));
  Maker make(34);
  make.Fill(weights);
  return weights;
}

TEST(ErrorBound, IsThereForFixedCoefficientsOnly) {
  Weights weights = Small();
  PlanInput input = weights.Input();
  ASSERT_TRUE(MakePlan(input)->bound.has_value());
  EXPECT_GT(MakePlan(input)->bound->total, 0);
  input.coefficients.reset();
  EXPECT_FALSE(MakePlan(input)->bound.has_value());
}

TEST(ErrorBound, IsNotThereForASampledExpert) {
  Weights weights = Small();
  weights.statistics.kinds[1] = StatisticsKind::kProbe;
  EXPECT_FALSE(MakePlan(weights.Input())->bound.has_value());
}

TEST(ErrorBound, IsNotThereWithoutStatistics) {
  Weights weights = Small();
  weights.family.options.scoring = "uniform";
  ASSERT_TRUE(MakePlan(weights.Input())->bound.has_value());
  weights.statistics.kinds[1] = StatisticsKind::kNone;
  EXPECT_FALSE(MakePlan(weights.Input())->bound.has_value());
  PlanInput input = weights.Input();
  input.statistics = nullptr;
  EXPECT_FALSE(MakePlan(input)->bound.has_value());
}

TEST(ErrorBound, IsNotThereIfTheBaseIsNotKnown) {
  Weights weights = Small();
  weights.statistics.base[0].clear();
  EXPECT_FALSE(MakePlan(weights.Input())->bound.has_value());
  weights.statistics.base[0].resize(9);
  EXPECT_FALSE(MakePlan(weights.Input())->bound.has_value());
}

TEST(ErrorBound, IsNotThereForDeltasThatAreNotFinite) {
  Weights weights = Small();
  weights.statistics.stored[1][0][3].max_abs = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(MakePlan(weights.Input())->bound.has_value());
}

TEST(ErrorBound, IsNotThereWhereTheOutputMayOverflow) {
  Weights weights = Small();
  weights.family.options.out_dtype = DType::kF16;
  ASSERT_TRUE(MakePlan(weights.Input())->bound.has_value());
  for (BaseBlockStatistics& block : weights.statistics.base[0]) block.sum_squares = 7e4 * 7e4;
  EXPECT_FALSE(MakePlan(weights.Input())->bound.has_value());
  weights.family.options.out_dtype.reset();
  EXPECT_TRUE(MakePlan(weights.Input())->bound.has_value());
}

TEST(ErrorBound, IsNothingWhenEverythingIsRead) {
  Weights weights = Small();
  weights.family.options.top_p = 1;
  PlanInput input = weights.Input();
  EXPECT_EQ(MakePlan(input)->bound, ErrorBound{});
  input.statistics = nullptr;
  EXPECT_EQ(MakePlan(input)->bound, ErrorBound{});
  input.coefficients.reset();
  EXPECT_FALSE(MakePlan(input)->bound.has_value());
}

TEST(ErrorBound, LeavesOutExpertsWithoutWeight) {
  Weights weights = Small();
  weights.coefficients = {0, 0};
  EXPECT_EQ(MakePlan(weights.Input())->bound, ErrorBound{});
}

}  // namespace
}  // namespace mergepipe
