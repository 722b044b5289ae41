#include "mergepipe/kernels/avg.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/avg.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/checks.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

void AddScaledLoop(float coefficient, const float* HWY_RESTRICT delta, float* HWY_RESTRICT sum,
                   size_t count) {
  for (size_t i = 0; i < count; ++i) sum[i] += coefficient * delta[i];
}

void ScaleLoop(float factor, float* values, size_t count) {
  for (size_t i = 0; i < count; ++i) values[i] = factor * values[i];
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mergepipe {

HWY_EXPORT(AddScaledLoop);
HWY_EXPORT(ScaleLoop);

void AddScaled(float coefficient, std::span<const float> delta, std::span<float> sum) {
  Require(delta.size() == sum.size());
  HWY_DYNAMIC_DISPATCH(AddScaledLoop)(coefficient, delta.data(), sum.data(), sum.size());
}

void Scale(float factor, std::span<float> values) {
  HWY_DYNAMIC_DISPATCH(ScaleLoop)(factor, values.data(), values.size());
}

}  // namespace mergepipe
#endif
