#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "mergepipe/base/dtype.h"

/// \file
/// Inputs for kernel tests, and plain references that share nothing with the kernels: one element
/// at a time, in double, by the definition of the formats.
namespace mergepipe::test {

inline constexpr size_t kLengths[] = {0, 1, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 1000};
inline constexpr DType kFloatTypes[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16};

/// A copy of `size` bytes that starts at an odd address.
class Misaligned {
 public:
  explicit Misaligned(size_t size) : bytes_(size + 65), size_(size) {
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    offset_ = (64 - address % 64) % 64 + 1;
  }
  std::span<std::byte> bytes() { return std::span(bytes_).subspan(offset_, size_); }

 private:
  std::vector<std::byte> bytes_;
  size_t offset_ = 0;
  size_t size_;
};

/// Significand bits (with the hidden one) and exponent range of a format.
struct Shape {
  int precision;
  int max_exponent;  ///< of the largest finite value, as in 1.x * 2^e
  int min_exponent;  ///< of the smallest normal value
};

inline Shape ShapeOf(DType dtype) {
  switch (dtype) {
    case DType::kF64: return {53, 1023, -1022};
    case DType::kF32: return {24, 127, -126};
    case DType::kF16: return {11, 15, -14};
    default: return {8, 127, -126};
  }
}

/// The value of stored bits, by the definition of the format.
inline double Decode(DType dtype, uint64_t bits) {
  const Shape shape = ShapeOf(dtype);
  const int width = static_cast<int>(DTypeSize(dtype)) * 8;
  const int fraction_bits = shape.precision - 1;
  const uint64_t fraction = bits & ((uint64_t{1} << fraction_bits) - 1);
  const int exponent_bits = width - 1 - fraction_bits;
  const auto exponent =
      static_cast<int>((bits >> fraction_bits) & ((uint64_t{1} << exponent_bits) - 1));
  const double sign = (bits >> (width - 1)) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) {
    return fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * HUGE_VAL;
  }
  if (exponent == 0) {
    return sign * std::ldexp(static_cast<double>(fraction), shape.min_exponent - fraction_bits);
  }
  const auto significand = static_cast<double>(fraction | (uint64_t{1} << fraction_bits));
  return sign * std::ldexp(significand, exponent - 1 + shape.min_exponent - fraction_bits);
}

/// The bits of `value` rounded once to nearest-even, NaN canonical. `value` may be any double.
inline uint64_t Encode(DType dtype, double value) {
  const Shape shape = ShapeOf(dtype);
  const int width = static_cast<int>(DTypeSize(dtype)) * 8;
  const int fraction_bits = shape.precision - 1;
  const uint64_t infinity = ((uint64_t{1} << (width - 1 - fraction_bits)) - 1) << fraction_bits;
  if (std::isnan(value)) return infinity | uint64_t{1} << (fraction_bits - 1);
  const uint64_t sign = std::signbit(value) ? uint64_t{1} << (width - 1) : 0;
  const double magnitude = std::fabs(value);
  if (std::isinf(magnitude)) return sign | infinity;
  if (magnitude == 0) return sign;
  const int exponent = std::max(std::ilogb(magnitude), shape.min_exponent);
  // In units of the last place; nearbyint rounds halves to even. Bits of the next binade or of
  // infinity follow from a carry.
  const double units = std::nearbyint(std::ldexp(magnitude, fraction_bits - exponent));
  if (std::ldexp(units, exponent - fraction_bits) >= std::ldexp(1.0, shape.max_exponent) * 2) {
    return sign | infinity;
  }
  const auto biased = static_cast<uint64_t>(exponent - shape.min_exponent);
  return sign | ((biased << fraction_bits) + static_cast<uint64_t>(units));
}

inline uint64_t LoadBits(DType dtype, std::span<const std::byte> stored, size_t i) {
  uint64_t bits = 0;
  const size_t size = DTypeSize(dtype);
  std::memcpy(&bits, stored.data() + i * size, size);
  return bits;
}

inline void StoreBits(DType dtype, uint64_t bits, std::span<std::byte> stored, size_t i) {
  const size_t size = DTypeSize(dtype);
  std::memcpy(stored.data() + i * size, &bits, size);
}

/// Equal as values, any NaN being equal to any other; -0 and 0 differ.
inline bool SameFloat(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

/// Floats of every kind: zeros, denormals, infinities, NaNs with payloads, halfway cases, random
/// bits.
inline std::vector<float> SampleFloats(size_t count, uint64_t seed) {
  const float special[] = {0.0f,
                           -0.0f,
                           1.0f,
                           -1.0f,
                           0x1p-149f,
                           -0x1p-149f,
                           0x1.fffffcp-127f,
                           0x1p-126f,
                           65504.0f,
                           65519.99f,
                           65520.0f,
                           -65520.0f,
                           0x1p-24f,
                           0x1p-25f,
                           0x1.8p-24f,
                           0x1.8p-25f,
                           0x1.004p0f,
                           0x1.00cp0f,
                           0x1.01p0f,
                           0x1.03p0f,
                           std::numeric_limits<float>::max(),
                           std::numeric_limits<float>::infinity(),
                           -std::numeric_limits<float>::infinity(),
                           std::bit_cast<float>(0x7fc12345u),
                           std::bit_cast<float>(0xff812345u)};
  std::mt19937_64 random(seed);
  std::vector<float> values(count);
  for (float& value : values) {
    const uint64_t draw = random();
    const auto bits = static_cast<uint32_t>(draw >> 32);
    switch (draw % 4) {
      case 0: value = special[bits % std::size(special)]; break;
      case 1: value = std::bit_cast<float>(bits); break;
      default: value = std::ldexp(static_cast<float>(static_cast<int32_t>(bits)), -36); break;
    }
  }
  return values;
}

/// Stored elements of every kind, made by the reference. F64 values lie around the other formats'
/// halfway points.
inline std::vector<std::byte> SampleStored(DType dtype, size_t count, uint64_t seed) {
  const std::vector<float> values = SampleFloats(count, seed);
  std::vector<std::byte> stored(count * DTypeSize(dtype));
  std::mt19937_64 random(seed + 1);
  for (size_t i = 0; i < count; ++i) {
    double value = values[i];
    if (dtype == DType::kF64 && random() % 2 == 0)
      value = std::nextafter(value, random() % 2 ? 1e9 : -1e9);
    if (dtype == DType::kF64 && random() % 16 == 0)
      value = std::ldexp(1.0, static_cast<int>(random() % 2000) - 1000);
    StoreBits(dtype, Encode(dtype, value), stored, i);
  }
  return stored;
}

}  // namespace mergepipe::test
