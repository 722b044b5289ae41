#include "mergepipe/kernels/convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/convert.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/checks.h"
#include "kernels/float_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

template <class Format>
void Widen(const std::byte* HWY_RESTRICT stored, float* HWY_RESTRICT out, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = Format::ToFloat(Load<Format>(stored, i));
}

template <class Format>
void Round(const float* HWY_RESTRICT values, std::byte* HWY_RESTRICT out, size_t count) {
  for (size_t i = 0; i < count; ++i) Store<Format>(Format::FromFloat(values[i]), out, i);
}

void WidenAny(DType dtype, const std::byte* stored, float* out, size_t count) {
  WithFormat(dtype, [&](auto format) HWY_ATTR { Widen<decltype(format)>(stored, out, count); });
}

void RoundAny(DType dtype, const float* values, std::byte* out, size_t count) {
  WithFormat(dtype, [&](auto format) HWY_ATTR { Round<decltype(format)>(values, out, count); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mergepipe {

HWY_EXPORT(WidenAny);
HWY_EXPORT(RoundAny);

void ToFloat(DType dtype, std::span<const std::byte> stored, std::span<float> out) {
  RequireElements(dtype, stored, out.size());
  HWY_DYNAMIC_DISPATCH(WidenAny)(dtype, stored.data(), out.data(), out.size());
}

void FromFloat(DType dtype, std::span<const float> values, std::span<std::byte> out) {
  RequireElements(dtype, out, values.size());
  HWY_DYNAMIC_DISPATCH(RoundAny)(dtype, values.data(), out.data(), values.size());
}

}  // namespace mergepipe
#endif
