#include "mergepipe/kernels/ties.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

#include "kernels/raw_inputs.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ties.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/common_format.h"
#include "kernels/vector_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

// Adding 0 for an expert that does not take part leaves a sum that started from 0 as it is: it is
// never -0.
void AddTrimmedLoop(float threshold, float weight, const float* HWY_RESTRICT delta,
                    float* HWY_RESTRICT all, float* HWY_RESTRICT positive,
                    float* HWY_RESTRICT negative, float* HWY_RESTRICT positive_weight,
                    float* HWY_RESTRICT negative_weight, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const float magnitude = __builtin_fabsf(delta[i]);
    const float product = weight * delta[i];
    const float reached = magnitude >= threshold ? product : 0.0f;
    const float value = magnitude > 0.0f ? reached : 0.0f;
    all[i] += value;
    positive[i] += value > 0.0f ? value : 0.0f;
    negative[i] += value < 0.0f ? value : 0.0f;
    positive_weight[i] += value > 0.0f ? weight : 0.0f;
    negative_weight[i] += value < 0.0f ? weight : 0.0f;
  }
}

void ElectMeanLoop(const float* HWY_RESTRICT all, const float* HWY_RESTRICT positive,
                   const float* HWY_RESTRICT negative, const float* HWY_RESTRICT positive_weight,
                   const float* HWY_RESTRICT negative_weight, float lambda,
                   float* HWY_RESTRICT merged, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const bool plus = all[i] >= 0.0f;
    const float weight = plus ? positive_weight[i] : negative_weight[i];
    const float mean = lambda * ((plus ? positive[i] : negative[i]) / weight);
    merged[i] = weight == 0.0f ? 0.0f : mean;
  }
}

void ElectSumLoop(const float* HWY_RESTRICT all, const float* HWY_RESTRICT positive,
                  const float* HWY_RESTRICT negative, float lambda, float* HWY_RESTRICT merged,
                  size_t count) {
  for (size_t i = 0; i < count; ++i) {
    merged[i] = lambda * (all[i] >= 0.0f ? positive[i] : negative[i]);
  }
}

struct VectorSums {
  FloatVector all;
  FloatVector positive;
  FloatVector negative;
  FloatVector positive_weight;
  FloatVector negative_weight;
};

// As AddTrimmedLoop, with a threshold above 0.
HWY_INLINE void AddVector(FloatTag d, FloatVector delta, float threshold, float weight,
                          VectorSums& sums) {
  const auto factor = hn::Set(d, weight);
  const auto kept = hn::Ge(hn::Abs(delta), hn::Set(d, threshold));
  const auto value = hn::Mul(factor, delta);
  const auto plus = hn::And(kept, hn::Gt(value, hn::Zero(d)));
  const auto minus = hn::And(kept, hn::Lt(value, hn::Zero(d)));
  sums.all = AddWhere(kept, sums.all, value);
  sums.positive = AddWhere(plus, sums.positive, value);
  sums.negative = AddWhere(minus, sums.negative, value);
  sums.positive_weight = AddWhere(plus, sums.positive_weight, factor);
  sums.negative_weight = AddWhere(minus, sums.negative_weight, factor);
}

HWY_INLINE FloatVector Elect(FloatTag d, const VectorSums& sums, bool mean, FloatVector lambda) {
  const auto plus = hn::Ge(sums.all, hn::Zero(d));
  const auto sum = hn::IfThenElse(plus, sums.positive, sums.negative);
  if (!mean) return hn::Mul(lambda, sum);
  const auto weight = hn::IfThenElse(plus, sums.positive_weight, sums.negative_weight);
  return hn::IfThenZeroElse(hn::Eq(weight, hn::Zero(d)), hn::Mul(lambda, hn::Div(sum, weight)));
}

template <class Format>
void MergeTiesLoop(const std::byte* HWY_RESTRICT base, const RawTiesInput* HWY_RESTRICT inputs,
                   size_t experts, bool mean, float lambda, float* HWY_RESTRICT merged,
                   size_t count) {
  const FloatTag d;
  const auto factor = hn::Set(d, lambda);
  for (size_t i = 0; i < count; i += hn::Lanes(d)) {
    const auto origin = LoadFloats<Format>(d, base, i);
    VectorSums sums{hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
    for (size_t k = 0; k < experts; ++k) {
      const auto delta = hn::Sub(LoadFloats<Format>(d, inputs[k].stored, i), origin);
      AddVector(d, delta, inputs[k].threshold, inputs[k].weight, sums);
    }
    hn::StoreU(Elect(d, sums, mean, factor), d, merged + i);
  }
}

void MergeTiesAny(DType dtype, const std::byte* base, const RawTiesInput* inputs, size_t experts,
                  bool mean, float lambda, float* merged, size_t count) {
  WithVectorFormat(dtype, [&](auto format) HWY_ATTR {
    MergeTiesLoop<decltype(format)>(base, inputs, experts, mean, lambda, merged, count);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mergepipe {
namespace {

void RequireLength(const TiesSums& sums, size_t count) {
  Require(sums.all.size() == count && sums.positive.size() == count &&
          sums.negative.size() == count && sums.positive_weight.size() == count &&
          sums.negative_weight.size() == count);
}

// The elements of one delta tile, whatever the types.
void MergeTile(const StoredElements& base, std::span<const TiesInput> inputs, size_t begin,
               TiesElection election, float lambda, std::span<float> merged) {
  alignas(64) std::array<float, kDeltaTile> delta_storage;
  alignas(64) std::array<std::array<float, kDeltaTile>, 5> storage{};
  const size_t length = merged.size();
  const auto delta = std::span(delta_storage).first(length);
  const auto sum = [&](size_t i) { return std::span(storage[i]).first(length); };
  const TiesSums sums{sum(0), sum(1), sum(2), sum(3), sum(4)};
  for (const TiesInput& input : inputs) {
    ComputeDelta(Part(input.stored, begin, length), Part(base, begin, length), delta);
    AddTrimmed(input.threshold, input.weight, delta, sums);
  }
  if (election == TiesElection::kMean) {
    ElectMean(sums, lambda, merged);
  } else {
    ElectSum(sums, lambda, merged);
  }
}

}  // namespace

HWY_EXPORT(AddTrimmedLoop);
HWY_EXPORT(MergeTiesAny);
HWY_EXPORT(ElectMeanLoop);
HWY_EXPORT(ElectSumLoop);

void AddTrimmed(float threshold, float weight, std::span<const float> delta, const TiesSums& sums) {
  RequireLength(sums, delta.size());
  HWY_DYNAMIC_DISPATCH(AddTrimmedLoop)
  (threshold, weight, delta.data(), sums.all.data(), sums.positive.data(), sums.negative.data(),
   sums.positive_weight.data(), sums.negative_weight.data(), delta.size());
}

void ElectMean(const TiesSums& sums, float lambda, std::span<float> merged) {
  RequireLength(sums, merged.size());
  HWY_DYNAMIC_DISPATCH(ElectMeanLoop)
  (sums.all.data(), sums.positive.data(), sums.negative.data(), sums.positive_weight.data(),
   sums.negative_weight.data(), lambda, merged.data(), merged.size());
}

void ElectSum(const TiesSums& sums, float lambda, std::span<float> merged) {
  RequireLength(sums, merged.size());
  HWY_DYNAMIC_DISPATCH(ElectSumLoop)
  (sums.all.data(), sums.positive.data(), sums.negative.data(), lambda, merged.data(),
   merged.size());
}

void MergeTies(const StoredElements& base, std::span<const TiesInput> inputs, TiesElection election,
               float lambda, std::span<float> merged) {
  const size_t fused = FusedCount(base, inputs, merged.size());
  if (fused > 0) {
    std::array<RawTiesInput, kFusedExperts> raw;
    for (size_t k = 0; k < inputs.size(); ++k) {
      // A delta of 0 is never kept: as if the threshold were above 0.
      const float threshold =
          std::max(inputs[k].threshold, std::numeric_limits<float>::denorm_min());
      raw[k] = {inputs[k].stored.bytes.data(), threshold, inputs[k].weight};
    }
    HWY_DYNAMIC_DISPATCH(MergeTiesAny)
    (base.dtype, base.bytes.data(), raw.data(), inputs.size(), election == TiesElection::kMean,
     lambda, merged.data(), fused);
  }
  ForEachDeltaTile(fused, merged.size(), [&](size_t begin, size_t length) {
    MergeTile(base, inputs, begin, election, lambda, merged.subspan(begin, length));
  });
}

}  // namespace mergepipe
#endif
