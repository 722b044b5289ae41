#include "mergepipe/kernels/ties.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ties.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/checks.h"

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

}  // namespace

HWY_EXPORT(AddTrimmedLoop);
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

}  // namespace mergepipe
#endif
