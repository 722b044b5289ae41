#include "mergepipe/kernels/convert.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/samples.h"

namespace mergepipe {
namespace {

using namespace test;

float OneToFloat(DType dtype, uint64_t bits) {
  std::byte stored[8];
  float value = 0;
  StoreBits(dtype, bits, stored, 0);
  ToFloat(dtype, std::span(stored).first(DTypeSize(dtype)), std::span(&value, 1));
  return value;
}

uint64_t OneFromFloat(DType dtype, float value) {
  std::byte stored[8];
  FromFloat(dtype, std::span(&value, 1), std::span(stored).first(DTypeSize(dtype)));
  return LoadBits(dtype, stored, 0);
}

TEST(Convert, Every16BitValueBecomesItsFloatAndComesBack) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    std::vector<std::byte> stored(2 * 65536);
    for (uint64_t bits = 0; bits < 65536; ++bits) StoreBits(dtype, bits, stored, bits);
    std::vector<float> values(65536);
    ToFloat(dtype, stored, values);
    std::vector<std::byte> back(stored.size());
    FromFloat(dtype, values, back);
    for (uint64_t bits = 0; bits < 65536; ++bits) {
      const double expected = Decode(dtype, bits);
      ASSERT_TRUE(SameFloat(values[bits], static_cast<float>(expected))) << bits;
      const uint64_t canonical = dtype == DType::kF16 ? 0x7e00 : 0x7fc0;
      ASSERT_EQ(LoadBits(dtype, back, bits), std::isnan(expected) ? canonical : bits);
    }
  }
}

// Between each pair of neighbours: the halfway point, and the floats around it.
TEST(Convert, RoundsEvery16BitHalfwayCaseToEven) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    std::vector<float> values;
    const uint64_t infinity = Encode(dtype, HUGE_VAL);
    for (uint64_t bits = 0; bits < infinity; ++bits) {
      const double step =
          Decode(dtype, bits == 0 ? 1 : bits) - Decode(dtype, bits == 0 ? 0 : bits - 1);
      const double above =
          bits + 1 < infinity ? Decode(dtype, bits + 1) : Decode(dtype, bits) + step;
      const auto half = static_cast<float>((Decode(dtype, bits) + above) / 2);
      for (const float value :
           {std::nextafter(half, 0.0f), half, std::nextafter(half, HUGE_VALF)}) {
        values.push_back(value);
        values.push_back(-value);
      }
    }
    std::vector<std::byte> out(values.size() * 2);
    FromFloat(dtype, values, out);
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(LoadBits(dtype, out, i), Encode(dtype, static_cast<double>(values[i])))
          << values[i];
    }
  }
}

TEST(Convert, KnownRoundings) {
  EXPECT_EQ(OneFromFloat(DType::kF16, 65519.99f), 0x7bffu);
  EXPECT_EQ(OneFromFloat(DType::kF16, 65520.0f), 0x7c00u);
  EXPECT_EQ(OneFromFloat(DType::kF16, -1e30f), 0xfc00u);
  EXPECT_EQ(OneFromFloat(DType::kF16, 0x1p-25f), 0u);
  EXPECT_EQ(OneFromFloat(DType::kF16, 0x1.8p-24f), 2u);
  EXPECT_EQ(OneFromFloat(DType::kF16, 0x1.ffep-15f), 0x0400u);
  EXPECT_EQ(OneFromFloat(DType::kBF16, 0x1.01p0f), 0x3f80u);
  EXPECT_EQ(OneFromFloat(DType::kBF16, 0x1.03p0f), 0x3f82u);
  EXPECT_EQ(OneFromFloat(DType::kBF16, std::numeric_limits<float>::max()), 0x7f80u);
  EXPECT_EQ(OneFromFloat(DType::kBF16, -0.0f), 0x8000u);
  EXPECT_EQ(OneFromFloat(DType::kF64, 0x1p-149f), std::bit_cast<uint64_t>(0x1p-149));
}

TEST(Convert, WritesCanonicalNan) {
  for (const uint32_t payload : {0x7f800001u, 0x7fc12345u, 0xffffffffu, 0xff800001u}) {
    const auto nan = std::bit_cast<float>(payload);
    EXPECT_EQ(OneFromFloat(DType::kF32, nan), 0x7fc00000u);
    EXPECT_EQ(OneFromFloat(DType::kBF16, nan), 0x7fc0u);
    EXPECT_EQ(OneFromFloat(DType::kF16, nan), 0x7e00u);
    EXPECT_EQ(OneFromFloat(DType::kF64, nan), 0x7ff8000000000000u);
  }
}

TEST(Convert, RoundsDoubles) {
  const auto convert = [](double value) {
    return OneToFloat(DType::kF64, std::bit_cast<uint64_t>(value));
  };
  EXPECT_EQ(convert(1.0 + 0x1p-24), 1.0f);
  EXPECT_EQ(convert(1.0 + 0x3p-24), 1.0f + 0x1p-22f);
  EXPECT_EQ(convert(1.0 + 0x1p-24 + 0x1p-50), 1.0f + 0x1p-23f);
  EXPECT_EQ(convert(0x1p-149), 0x1p-149f);
  EXPECT_EQ(convert(0x1p-150), 0.0f);
  EXPECT_EQ(convert(1e300), HUGE_VALF);
  EXPECT_TRUE(std::isnan(convert(std::nan("7"))));
}

TEST(Convert, AgreesWithTheReferenceAtEveryLengthAndAlignment) {
  for (const DType dtype : kFloatTypes) {
    for (const size_t length : kLengths) {
      const auto sample = SampleStored(dtype, length, length);
      Misaligned stored(sample.size());
      std::ranges::copy(sample, stored.bytes().begin());
      std::vector<float> values(length + 1, 42.0f);
      ToFloat(dtype, stored.bytes(), std::span(values).first(length));
      EXPECT_EQ(values[length], 42.0f);

      const auto floats = SampleFloats(length, length + 7);
      Misaligned out(sample.size() + 1);
      out.bytes().back() = std::byte{0x5a};
      FromFloat(dtype, floats, out.bytes().first(sample.size()));
      EXPECT_EQ(out.bytes().back(), std::byte{0x5a});
      for (size_t i = 0; i < length; ++i) {
        const auto expected = static_cast<float>(Decode(dtype, LoadBits(dtype, sample, i)));
        ASSERT_TRUE(SameFloat(values[i], expected)) << DTypeName(dtype) << ' ' << i;
        ASSERT_EQ(LoadBits(dtype, out.bytes(), i), Encode(dtype, static_cast<double>(floats[i])));
      }
    }
  }
}

TEST(ConvertDeathTest, RefusesOtherLengthsAndTypes) {
  std::byte stored[8] = {};
  float values[2] = {};
  EXPECT_DEATH(ToFloat(DType::kF32, std::span(stored).first(7), values), "");
  EXPECT_DEATH(ToFloat(DType::kI32, stored, values), "");
  EXPECT_DEATH(FromFloat(DType::kF64, values, stored), "");
}

}  // namespace
}  // namespace mergepipe
