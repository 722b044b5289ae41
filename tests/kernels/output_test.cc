#include "mergepipe/kernels/output.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/samples.h"

namespace mergepipe {
namespace {

using namespace test;

struct Written {
  std::vector<uint64_t> bits;
  NonFinite made;

  bool operator==(const Written&) const = default;
};

void CountMade(double before, double after, NonFinite& made) {
  if (!std::isfinite(before)) return;
  made.nan += std::isnan(after) ? 1 : 0;
  made.inf += std::isinf(after) ? 1 : 0;
}

uint64_t ReferenceConvert(DType dtype, uint64_t bits, DType out_dtype) {
  return dtype == out_dtype ? bits : Encode(out_dtype, Decode(dtype, bits));
}

Written ReferenceMerge(DType dtype, std::span<const std::byte> stored, std::span<const float> delta,
                       DType out_dtype) {
  Written written;
  for (size_t i = 0; i < delta.size(); ++i) {
    const uint64_t before = LoadBits(dtype, stored, i);
    const float merged = static_cast<float>(Decode(dtype, before)) + delta[i];
    const uint64_t after = delta[i] == 0 ? ReferenceConvert(dtype, before, out_dtype)
                                         : Encode(out_dtype, static_cast<double>(merged));
    written.bits.push_back(after);
    CountMade(Decode(dtype, before), Decode(out_dtype, after), written.made);
  }
  return written;
}

Written Merge(DType dtype, std::span<const std::byte> stored, std::span<const float> delta,
              DType out_dtype) {
  Misaligned source(stored.size());
  std::ranges::copy(stored, source.bytes().begin());
  Misaligned out(delta.size() * DTypeSize(out_dtype));
  Written written;
  written.made = WriteMerged({dtype, source.bytes()}, delta, out_dtype, out.bytes());
  for (size_t i = 0; i < delta.size(); ++i) {
    written.bits.push_back(LoadBits(out_dtype, out.bytes(), i));
  }
  return written;
}

Written Convert(DType dtype, std::span<const std::byte> stored, DType out_dtype) {
  const size_t count = stored.size() / DTypeSize(dtype);
  std::vector<std::byte> out(count * DTypeSize(out_dtype));
  Written written;
  written.made = ConvertStored(dtype, stored, out_dtype, out);
  for (size_t i = 0; i < count; ++i) written.bits.push_back(LoadBits(out_dtype, out, i));
  return written;
}

// A third of the merged deltas are 0, of both signs.
std::vector<float> SampleDeltas(size_t count) {
  auto delta = SampleFloats(count, count + 11);
  for (size_t i = 0; i < count; i += 3) delta[i] = i % 2 == 0 ? 0.0f : -0.0f;
  return delta;
}

TEST(WriteMerged, AgreesWithTheReferenceForEveryPairOfTypes) {
  for (const DType dtype : kFloatTypes) {
    for (const DType out_dtype : kFloatTypes) {
      for (const size_t length : kLengths) {
        const auto stored = SampleStored(dtype, length, length + 5);
        const auto delta = SampleDeltas(length);
        EXPECT_EQ(Merge(dtype, stored, delta, out_dtype),
                  ReferenceMerge(dtype, stored, delta, out_dtype))
            << DTypeName(dtype) << ' ' << DTypeName(out_dtype) << ' ' << length;
      }
    }
  }
}

TEST(WriteMerged, KeepsTheBitsOfABaseThatDoesNotChange) {
  std::vector<std::byte> stored(2 * 65536);
  for (uint64_t bits = 0; bits < 65536; ++bits) StoreBits(DType::kBF16, bits, stored, bits);
  std::vector<float> delta(65536, -0.0f);
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const Written written = Merge(dtype, stored, delta, dtype);
    EXPECT_EQ(written.made, NonFinite());
    for (uint64_t bits = 0; bits < 65536; ++bits) ASSERT_EQ(written.bits[bits], bits);
  }
  const double precise[] = {1.0 + 0x1p-52, 1e300, -0.0};
  const float none[] = {0.0f, -0.0f, 0.0f};
  const Written written = Merge(DType::kF64, std::as_bytes(std::span(precise)), none, DType::kF64);
  EXPECT_EQ(written.bits[0], std::bit_cast<uint64_t>(precise[0]));
  EXPECT_EQ(written.bits[1], std::bit_cast<uint64_t>(precise[1]));
  EXPECT_EQ(written.bits[2], std::bit_cast<uint64_t>(precise[2]));
  EXPECT_EQ(written.made, NonFinite());
}

TEST(WriteMerged, CountsOnlyWhatItMade) {
  const float base[] = {60000.0f, 60000.0f, HUGE_VALF, 1.0f, std::nanf("")};
  const float delta[] = {10000.0f, 1.0f, 1.0f, std::nanf(""), 0.0f};
  const auto stored = std::as_bytes(std::span(base));
  EXPECT_EQ(Merge(DType::kF32, stored, delta, DType::kF16).made, (NonFinite{1, 1}));
  EXPECT_EQ(Merge(DType::kF32, stored, delta, DType::kF32).made, (NonFinite{1, 0}));
}

TEST(ConvertStored, AgreesWithTheReferenceForEveryPairOfTypes) {
  for (const DType dtype : kFloatTypes) {
    for (const DType out_dtype : kFloatTypes) {
      for (const size_t length : kLengths) {
        const auto stored = SampleStored(dtype, length, length + 13);
        Written expected;
        for (size_t i = 0; i < length; ++i) {
          const uint64_t before = LoadBits(dtype, stored, i);
          expected.bits.push_back(ReferenceConvert(dtype, before, out_dtype));
          CountMade(Decode(dtype, before), Decode(out_dtype, expected.bits.back()), expected.made);
        }
        EXPECT_EQ(Convert(dtype, stored, out_dtype), expected)
            << DTypeName(dtype) << ' ' << DTypeName(out_dtype) << ' ' << length;
      }
    }
  }
}

// Just above a halfway point by less than float can hold: rounding to float first would give the
// halfway point, and then the even neighbour below.
TEST(ConvertStored, RoundsDoublesOnce) {
  const double values[] = {0x1.01p0 + 0x1p-50,  0x1.002p0 + 0x1p-50, -0x1.01p0 - 0x1p-50,
                           0x1.03p0 - 0x1p-50,  0x1p-25 + 0x1p-70,   1e300,
                           0x1.ffep15 - 0x1p-30};
  const auto stored = std::as_bytes(std::span(values));
  const Written bf16 = Convert(DType::kF64, stored, DType::kBF16);
  EXPECT_EQ(bf16.bits[0], 0x3f81u);
  EXPECT_EQ(bf16.bits[2], 0xbf81u);
  EXPECT_EQ(bf16.bits[3], 0x3f81u);
  EXPECT_EQ(bf16.made, (NonFinite{0, 1}));
  const Written f16 = Convert(DType::kF64, stored, DType::kF16);
  EXPECT_EQ(f16.bits[1], 0x3c01u);
  EXPECT_EQ(f16.bits[4], 0x0001u);
  EXPECT_EQ(f16.bits[6], 0x7bffu);
  EXPECT_EQ(f16.made, (NonFinite{0, 1}));
}

}  // namespace
}  // namespace mergepipe
