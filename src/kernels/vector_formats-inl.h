// Stored elements as Highway vectors of float, for kernels whose loops GCC would not vectorise.
#if defined(MERGEPIPE_KERNELS_VECTOR_FORMATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MERGEPIPE_KERNELS_VECTOR_FORMATS_INL_H_
#undef MERGEPIPE_KERNELS_VECTOR_FORMATS_INL_H_
#else
#define MERGEPIPE_KERNELS_VECTOR_FORMATS_INL_H_
#endif

#include "kernels/float_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Vector loops work on multiples of so many elements, whatever the target.
inline constexpr size_t kVectorStep = 16;
using FloatTag = hn::CappedTag<float, kVectorStep>;
using FloatVector = hn::Vec<FloatTag>;

#if HWY_TARGET == HWY_SCALAR

template <class Format>
HWY_INLINE FloatVector LoadFloats(FloatTag d, const std::byte* stored, size_t i) {
  return hn::Set(d, Format::ToFloat(Load<Format>(stored, i)));
}

#else

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2

// As F16::ToFloat, but a NaN may get another payload.
HWY_INLINE FloatVector WidenF16(FloatTag d, hn::Vec<hn::Rebind<uint16_t, FloatTag>> bits) {
  return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, FloatTag>(), bits));
}

#else

// As F16::ToFloat.
HWY_INLINE FloatVector WidenF16(FloatTag d, hn::Vec<hn::Rebind<uint16_t, FloatTag>> half) {
  const hn::RebindToUnsigned<FloatTag> du;
  const auto bits = hn::PromoteTo(du, half);
  const hn::RebindToSigned<FloatTag> di;
  const auto magnitude = hn::And(bits, hn::Set(du, F16::kMagnitude));
  const auto order = hn::BitCast(di, magnitude);
  const auto subnormal = hn::BitCast(du, hn::VecFromMask(di, hn::Lt(order, hn::Set(di, 0x0400))));
  const auto special = hn::BitCast(
      du, hn::VecFromMask(di, hn::Gt(order, hn::Set(di, static_cast<int>(F16::kInfinity) - 1))));
  const auto bias =
      hn::Add(hn::Set(du, 112u << 23), hn::And(subnormal, hn::Set(du, uint32_t{1} << 23)));
  const auto surplus = hn::And(subnormal, hn::Set(du, 113u << 23));
  const auto finite =
      hn::Sub(hn::BitCast(d, hn::Add(hn::ShiftLeft<13>(magnitude), bias)), hn::BitCast(d, surplus));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, uint32_t{0x8000})));
  const auto infinity = hn::And(special, hn::Set(du, F32::kInfinity));
  return hn::BitCast(d, hn::Or(hn::BitCast(du, finite), hn::Or(infinity, sign)));
}

#endif

// Elements i to i + Lanes(d) - 1.
template <class Format>
HWY_INLINE FloatVector LoadFloats(FloatTag d, const std::byte* stored, size_t i) {
  const auto* from =
      reinterpret_cast<const typename Format::Bits*>(stored + i * sizeof(typename Format::Bits));
  const hn::RebindToUnsigned<FloatTag> du;
  if constexpr (sizeof(typename Format::Bits) == 4) {
    return hn::BitCast(d, hn::LoadU(du, from));
  } else {
    const hn::Rebind<uint16_t, FloatTag> d16;
    const auto bits = hn::LoadU(d16, from);
    if constexpr (Format::kInfinity == BF16::kInfinity) {
      return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, bits)));
    } else {
      return WidenF16(d, bits);
    }
  }
}

#endif

// sum + addend in the lanes of `mask`, where the sum is not -0 elsewhere.
template <class Mask>
HWY_INLINE FloatVector AddWhere(Mask mask, FloatVector sum, FloatVector addend) {
#if HWY_TARGET == HWY_AVX3
  return FloatVector{_mm512_mask_add_ps(sum.raw, mask.raw, sum.raw, addend.raw)};
#else
  return hn::Add(sum, hn::IfThenElseZero(mask, addend));
#endif
}

// As WithFormat, for the types that LoadFloats knows.
template <class Body>
HWY_INLINE auto WithVectorFormat(DType dtype, Body body) {
  switch (dtype) {
    case DType::kF32: return body(F32());
    case DType::kF16: return body(F16());
    case DType::kBF16: return body(BF16());
    default: std::abort();
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#endif
