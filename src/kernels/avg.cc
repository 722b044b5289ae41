#include "mergepipe/kernels/avg.h"

#include <algorithm>
#include <array>
#include <cstddef>

#include "kernels/raw_inputs.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/avg.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/common_format.h"
#include "kernels/vector_formats-inl.h"

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

template <class Format>
void MergeAvgLoop(const std::byte* HWY_RESTRICT base, const RawAvgInput* HWY_RESTRICT inputs,
                  size_t experts, float lambda, float* HWY_RESTRICT merged, size_t count) {
  const FloatTag d;
  const auto factor = hn::Set(d, lambda);
  for (size_t i = 0; i < count; i += hn::Lanes(d)) {
    const auto origin = LoadFloats<Format>(d, base, i);
    auto sum = hn::Zero(d);
    for (size_t k = 0; k < experts; ++k) {
      const auto delta = hn::Sub(LoadFloats<Format>(d, inputs[k].stored, i), origin);
      sum = hn::Add(sum, hn::Mul(hn::Set(d, inputs[k].coefficient), delta));
    }
    hn::StoreU(hn::Mul(factor, sum), d, merged + i);
  }
}

void MergeAvgAny(DType dtype, const std::byte* base, const RawAvgInput* inputs, size_t experts,
                 float lambda, float* merged, size_t count) {
  WithVectorFormat(dtype, [&](auto format) HWY_ATTR {
    MergeAvgLoop<decltype(format)>(base, inputs, experts, lambda, merged, count);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mergepipe {

HWY_EXPORT(AddScaledLoop);
HWY_EXPORT(ScaleLoop);
HWY_EXPORT(MergeAvgAny);

void AddScaled(float coefficient, std::span<const float> delta, std::span<float> sum) {
  Require(delta.size() == sum.size());
  HWY_DYNAMIC_DISPATCH(AddScaledLoop)(coefficient, delta.data(), sum.data(), sum.size());
}

void Scale(float factor, std::span<float> values) {
  HWY_DYNAMIC_DISPATCH(ScaleLoop)(factor, values.data(), values.size());
}

void MergeAvg(const StoredElements& base, std::span<const AvgInput> inputs, float lambda,
              std::span<float> merged) {
  const size_t fused = FusedCount(base, inputs, merged.size());
  if (fused > 0) {
    std::array<RawAvgInput, kFusedExperts> raw;
    for (size_t k = 0; k < inputs.size(); ++k) {
      raw[k] = {inputs[k].stored.bytes.data(), inputs[k].coefficient};
    }
    HWY_DYNAMIC_DISPATCH(MergeAvgAny)
    (base.dtype, base.bytes.data(), raw.data(), inputs.size(), lambda, merged.data(), fused);
  }
  alignas(64) std::array<float, kDeltaTile> storage;
  ForEachDeltaTile(fused, merged.size(), [&](size_t begin, size_t length) {
    const auto delta = std::span(storage).first(length);
    const auto sum = merged.subspan(begin, length);
    std::ranges::fill(sum, 0.0f);
    for (const AvgInput& input : inputs) {
      ComputeDelta(Part(input.stored, begin, length), Part(base, begin, length), delta);
      AddScaled(input.coefficient, delta, sum);
    }
    Scale(lambda, sum);
  });
}

}  // namespace mergepipe
#endif
