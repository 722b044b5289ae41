#include "mergepipe/kernels/dare.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dare.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/checks.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

// Adding 0 leaves a sum that started from 0 as it is: it is never -0.
void AddRescaledLoop(uint32_t last_kept, float keep_rate, const uint32_t* HWY_RESTRICT draws,
                     float coefficient, const float* HWY_RESTRICT delta, float* HWY_RESTRICT sum,
                     size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const float share = coefficient * (delta[i] / keep_rate);
    sum[i] += draws[i] <= last_kept ? share : 0.0f;
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mergepipe {

HWY_EXPORT(AddRescaledLoop);

void AddRescaled(const DareKeep& keep, std::span<const uint32_t> draws, float coefficient,
                 std::span<const float> delta, std::span<float> sum) {
  Require(draws.size() == sum.size() && delta.size() == sum.size());
  Require(keep.limit <= uint64_t{1} << 32);
  if (keep.limit == 0) return;
  HWY_DYNAMIC_DISPATCH(AddRescaledLoop)
  (static_cast<uint32_t>(keep.limit - 1), keep.keep_rate, draws.data(), coefficient, delta.data(),
   sum.data(), sum.size());
}

}  // namespace mergepipe
#endif
