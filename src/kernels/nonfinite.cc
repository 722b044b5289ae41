#include "mergepipe/kernels/nonfinite.h"

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

// Elements that are looked at together. Narrow counters keep as many lanes as the elements have.
constexpr size_t kCheckedRun = 8192;

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

// Whether the arithmetic sees an infinity or a NaN.
template <class Format>
bool HasNonFinite(const std::byte* HWY_RESTRICT stored, size_t count) {
  if constexpr (sizeof(typename Format::Bits) == 8) {
    return true;
  } else {
    return LargestMagnitude<Format>(stored, count) >= Format::kInfinity;
  }
}

template <class Format>
void CountWhereNeeded(const std::byte* stored, size_t count, uint64_t* nan, uint64_t* inf) {
  for (size_t begin = 0; begin < count; begin += kCheckedRun) {
    const size_t length = count - begin < kCheckedRun ? count - begin : kCheckedRun;
    const std::byte* run = stored + begin * sizeof(typename Format::Bits);
    if (!HasNonFinite<Format>(run, length)) continue;
    uint32_t nans = 0;
    uint32_t infs = 0;
    Count<Format>(run, length, &nans, &infs);
    *nan += nans;
    *inf += infs;
  }
}

void CountAny(DType dtype, const std::byte* stored, size_t count, uint64_t* nan, uint64_t* inf) {
  WithFormat(dtype, [&](auto format)
                        HWY_ATTR { CountWhereNeeded<decltype(format)>(stored, count, nan, inf); });
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
  NonFinite total;
  HWY_DYNAMIC_DISPATCH(CountAny)
  (dtype, stored.data(), stored.size() / width, &total.nan, &total.inf);
  return total;
}

}  // namespace mergepipe
#endif
