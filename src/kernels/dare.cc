#include "mergepipe/kernels/dare.h"

#include <array>
#include <cstddef>

#include "kernels/raw_inputs.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dare.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/common_format.h"
#include "kernels/vector_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

// Adding 0 leaves a sum that started from 0 as it is: it is never -0.
void AddRescaledLoop(const DareShare& share, const uint32_t* HWY_RESTRICT draws,
                     const float* HWY_RESTRICT delta, float* HWY_RESTRICT sum, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const float added = share.coefficient * (delta[i] / share.keep_rate);
    sum[i] += draws[i] <= share.last_kept ? added : 0.0f;
  }
}

// Multiplies by the keep rate's inverse if `Exact`: where that is a power of two.
template <class Format, bool Exact>
void AddStoredLoop(const DareShare& share, const uint32_t* HWY_RESTRICT draws,
                   const std::byte* HWY_RESTRICT expert, const std::byte* HWY_RESTRICT base,
                   float* HWY_RESTRICT sum, size_t count) {
  const FloatTag d;
  const hn::RebindToUnsigned<FloatTag> du;
  const auto coefficient = hn::Set(d, share.coefficient);
  const auto keep_rate = hn::Set(d, share.keep_rate);
  const auto inverse = hn::Set(d, 1.0f / share.keep_rate);
  const auto last_kept = hn::Set(du, share.last_kept);
  for (size_t i = 0; i < count; i += hn::Lanes(d)) {
    const auto delta = hn::Sub(LoadFloats<Format>(d, expert, i), LoadFloats<Format>(d, base, i));
    const auto rescaled = Exact ? hn::Mul(delta, inverse) : hn::Div(delta, keep_rate);
    const auto dropped = hn::RebindMask(d, hn::Gt(hn::LoadU(du, draws + i), last_kept));
    const auto added = hn::IfThenZeroElse(dropped, hn::Mul(coefficient, rescaled));
    hn::StoreU(hn::Add(hn::LoadU(d, sum + i), added), d, sum + i);
  }
}

void AddStoredAny(DType dtype, const DareShare& share, const uint32_t* draws,
                  const std::byte* expert, const std::byte* base, float* sum, size_t count) {
  WithVectorFormat(dtype, [&](auto format) HWY_ATTR {
    using Format = decltype(format);
    if ((AsBits(share.keep_rate) & 0x7fffff) == 0) {
      AddStoredLoop<Format, true>(share, draws, expert, base, sum, count);
    } else {
      AddStoredLoop<Format, false>(share, draws, expert, base, sum, count);
    }
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mergepipe {

namespace {

DareShare ShareOf(const DareKeep& keep, float coefficient) {
  Require(keep.limit > 0 && keep.limit <= uint64_t{1} << 32);
  return {static_cast<uint32_t>(keep.limit - 1), keep.keep_rate, coefficient};
}

}  // namespace

HWY_EXPORT(AddRescaledLoop);
HWY_EXPORT(AddStoredAny);

void AddRescaled(const DareKeep& keep, std::span<const uint32_t> draws, float coefficient,
                 std::span<const float> delta, std::span<float> sum) {
  Require(draws.size() == sum.size() && delta.size() == sum.size());
  if (keep.limit == 0) return;
  HWY_DYNAMIC_DISPATCH(AddRescaledLoop)
  (ShareOf(keep, coefficient), draws.data(), delta.data(), sum.data(), sum.size());
}

void AddRescaled(const DareKeep& keep, std::span<const uint32_t> draws, float coefficient,
                 const StoredElements& expert, const StoredElements& base, std::span<float> sum) {
  Require(draws.size() == sum.size());
  const FusedInput input{expert};
  const size_t fused = FusedCount(base, std::span(&input, 1), sum.size());
  if (keep.limit == 0) return;
  if (fused > 0) {
    HWY_DYNAMIC_DISPATCH(AddStoredAny)
    (base.dtype, ShareOf(keep, coefficient), draws.data(), expert.bytes.data(), base.bytes.data(),
     sum.data(), fused);
  }
  alignas(64) std::array<float, kDeltaTile> storage;
  ForEachDeltaTile(fused, sum.size(), [&](size_t begin, size_t length) {
    const auto delta = std::span(storage).first(length);
    ComputeDelta(Part(expert, begin, length), Part(base, begin, length), delta);
    AddRescaled(keep, draws.subspan(begin, length), coefficient, delta, sum.subspan(begin, length));
  });
}

}  // namespace mergepipe
#endif
