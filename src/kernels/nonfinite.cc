#include "mergepipe/kernels/nonfinite.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/nonfinite.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/checks.h"
#include "kernels/float_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

template <class Format>
HWY_INLINE uint32_t ArithmeticBits(typename Format::Bits bits) {
  return AsBits(Format::ToFloat(bits));
}

// `count` < 2^32: narrow counters keep as many lanes as the elements have.
template <class Format>
void Count(const std::byte* HWY_RESTRICT stored, size_t count, uint32_t* nan, uint32_t* inf) {
  uint32_t nans = 0;
  uint32_t infs = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = ArithmeticBits<Format>(Load<Format>(stored, i));
    nans += IsNan<F32>(bits) ? 1 : 0;
    infs += IsInf<F32>(bits) ? 1 : 0;
  }
  *nan = nans;
  *inf = infs;
}

void CountAny(DType dtype, const std::byte* stored, size_t count, uint32_t* nan, uint32_t* inf) {
  WithFormat(dtype,
             [&](auto format) HWY_ATTR { Count<decltype(format)>(stored, count, nan, inf); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mergepipe {

HWY_EXPORT(CountAny);

NonFinite CountNonFinite(DType dtype, std::span<const std::byte> stored) {
  const size_t width = DTypeSize(dtype);
  RequireElements(dtype, stored, stored.size() / width);
  constexpr size_t kChunk = size_t{1} << 30;
  NonFinite total;
  while (!stored.empty()) {
    const auto chunk = stored.first(std::min(stored.size(), kChunk * width));
    uint32_t nan = 0;
    uint32_t inf = 0;
    HWY_DYNAMIC_DISPATCH(CountAny)(dtype, chunk.data(), chunk.size() / width, &nan, &inf);
    total += {nan, inf};
    stored = stored.subspan(chunk.size());
  }
  return total;
}

}  // namespace mergepipe
#endif
