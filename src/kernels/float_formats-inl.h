// The stored float types, for loops that are compiled once for each SIMD target. Selects instead of
// branches, so that the loops vectorise. Raw pointers and builtins only: an inline function of the
// standard library, instantiated in here, could be the copy that the linker keeps for machines
// without the target.
#if defined(MERGEPIPE_KERNELS_FLOAT_FORMATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MERGEPIPE_KERNELS_FLOAT_FORMATS_INL_H_
#undef MERGEPIPE_KERNELS_FLOAT_FORMATS_INL_H_
#else
#define MERGEPIPE_KERNELS_FLOAT_FORMATS_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "hwy/highway.h"
#include "mergepipe/base/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

HWY_INLINE uint32_t AsBits(float value) { return __builtin_bit_cast(uint32_t, value); }
HWY_INLINE float AsFloat(uint32_t bits) { return __builtin_bit_cast(float, bits); }

// To float with the last bit set if anything was cut off. A second rounding, to a type with at
// least two bits less, then gives what one rounding would (Boldo and Melquiond, "Emulation of FMA
// and correctly rounded sums", 2008).
HWY_INLINE float RoundToOdd(double value) {
  const auto nearest = static_cast<float>(value);
  const double magnitude = __builtin_fabs(value);
  const double rounded = __builtin_fabs(static_cast<double>(nearest));
  const uint32_t away = rounded > magnitude ? 1 : 0;
  const uint32_t inexact = ((rounded > magnitude) | (rounded < magnitude)) ? 1 : 0;
  return AsFloat((AsBits(nearest) - away) | inexact);
}

struct F32 {
  using Bits = uint32_t;
  static constexpr Bits kMagnitude = 0x7fffffff;
  static constexpr Bits kInfinity = 0x7f800000;
  static HWY_INLINE float ToFloat(Bits bits) { return AsFloat(bits); }
  static HWY_INLINE Bits FromFloat(float value) {
    const Bits bits = AsBits(value);
    return (bits & kMagnitude) > kInfinity ? 0x7fc00000 : bits;
  }
  static HWY_INLINE Bits FromDouble(double value) { return FromFloat(static_cast<float>(value)); }
};

struct BF16 {
  using Bits = uint16_t;
  static constexpr Bits kMagnitude = 0x7fff;
  static constexpr Bits kInfinity = 0x7f80;
  static HWY_INLINE float ToFloat(Bits bits) { return AsFloat(static_cast<uint32_t>(bits) << 16); }
  static HWY_INLINE Bits FromFloat(float value) {
    const uint32_t bits = AsBits(value);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const bool nan = (bits & F32::kMagnitude) > F32::kInfinity;
    return static_cast<Bits>(nan ? 0x7fc0 : rounded);
  }
  static HWY_INLINE Bits FromDouble(double value) { return FromFloat(RoundToOdd(value)); }
};

struct F16 {
  using Bits = uint16_t;
  static constexpr Bits kMagnitude = 0x7fff;
  static constexpr Bits kInfinity = 0x7c00;

  // A subnormal gets the hidden bit it lacks, which is then subtracted. One subtraction for all,
  // not one of two values to choose from: GCC would branch around that.
  static HWY_INLINE float ToFloat(Bits bits) {
    const uint32_t magnitude = bits & kMagnitude;
    const uint32_t bias = magnitude < 0x0400 ? 113u << 23 : 112u << 23;
    const uint32_t surplus = magnitude < 0x0400 ? 113u << 23 : 0;
    const uint32_t finite = AsBits(AsFloat((magnitude << 13) + bias) - AsFloat(surplus));
    const uint32_t special = magnitude >= kInfinity ? F32::kInfinity : 0;
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
    return AsFloat(finite | special | sign);
  }

  static HWY_INLINE Bits FromFloat(float value) {
    const uint32_t bits = AsBits(value);
    const uint32_t magnitude = bits & F32::kMagnitude;
    const uint32_t carried = (magnitude + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    const uint32_t unbiased = carried - ((127 - 15) << 10);
    const uint32_t normal = magnitude < 0x47800000 ? unbiased : kInfinity;
    // The spacing of floats in [0.5, 1) is that of F16's subnormals, so the addition rounds.
    const uint32_t subnormal = AsBits(AsFloat(magnitude) + 0.5f) - AsBits(0.5f);
    const uint32_t rounded = magnitude < 0x38800000 ? subnormal : normal;
    const uint32_t sign = (bits >> 16) & 0x8000;
    return static_cast<Bits>(magnitude > F32::kInfinity ? 0x7e00 : rounded | sign);
  }
  static HWY_INLINE Bits FromDouble(double value) { return FromFloat(RoundToOdd(value)); }
};

struct F64 {
  using Bits = uint64_t;
  static constexpr Bits kMagnitude = 0x7fffffffffffffff;
  static constexpr Bits kInfinity = 0x7ff0000000000000;
  static HWY_INLINE double ToDouble(Bits bits) { return __builtin_bit_cast(double, bits); }
  static HWY_INLINE float ToFloat(Bits bits) { return static_cast<float>(ToDouble(bits)); }
  static HWY_INLINE Bits FromFloat(float value) {
    const Bits bits = __builtin_bit_cast(Bits, static_cast<double>(value));
    return (bits & kMagnitude) > kInfinity ? 0x7ff8000000000000 : bits;
  }
};

template <class Format>
HWY_INLINE typename Format::Bits Load(const std::byte* stored, size_t i) {
  typename Format::Bits bits;
  __builtin_memcpy(&bits, stored + i * sizeof(bits), sizeof(bits));
  return bits;
}

template <class Format>
HWY_INLINE void Store(typename Format::Bits bits, std::byte* stored, size_t i) {
  __builtin_memcpy(stored + i * sizeof(bits), &bits, sizeof(bits));
}

template <class Format>
HWY_INLINE bool IsNan(typename Format::Bits bits) {
  return (bits & Format::kMagnitude) > Format::kInfinity;
}

template <class Format>
HWY_INLINE bool IsInf(typename Format::Bits bits) {
  return (bits & Format::kMagnitude) == Format::kInfinity;
}

template <class Format>
HWY_INLINE bool IsFinite(typename Format::Bits bits) {
  return (bits & Format::kMagnitude) < Format::kInfinity;
}

template <class Format>
HWY_INLINE typename Format::Bits LargestMagnitude(const std::byte* HWY_RESTRICT stored,
                                                  size_t count) {
  typename Format::Bits largest = 0;
  for (size_t i = 0; i < count; ++i) {
    const auto magnitude =
        static_cast<typename Format::Bits>(Load<Format>(stored, i) & Format::kMagnitude);
    largest = largest < magnitude ? magnitude : largest;
  }
  return largest;
}

// body(Format()) for the format of `dtype`.
template <class Body>
HWY_INLINE auto WithFormat(DType dtype, Body body) {
  switch (dtype) {
    case DType::kF64: return body(F64());
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
