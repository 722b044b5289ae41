#include "mergepipe/kernels/nonfinite.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/samples.h"

namespace mergepipe {
namespace {

using namespace test;

TEST(NonFinite, CountsWhatFloatArithmeticSees) {
  for (const DType dtype : kFloatTypes) {
    for (const size_t length : kLengths) {
      const auto sample = SampleStored(dtype, length, length + 3);
      Misaligned stored(sample.size());
      std::ranges::copy(sample, stored.bytes().begin());
      NonFinite expected;
      for (size_t i = 0; i < length; ++i) {
        const auto value = static_cast<float>(Decode(dtype, LoadBits(dtype, sample, i)));
        expected.nan += std::isnan(value) ? 1 : 0;
        expected.inf += std::isinf(value) ? 1 : 0;
      }
      EXPECT_EQ(CountNonFinite(dtype, stored.bytes()), expected) << DTypeName(dtype) << length;
      if (length == 1000) {
        EXPECT_GT(expected.nan, 0u);
        EXPECT_GT(expected.inf, 0u);
      }
    }
  }
}

TEST(NonFinite, CountsDoublesBeyondFloat) {
  const double values[] = {1e38, 0x1.fffffefffffffp127, 0x1.ffffffp127, -1e300, 0.0};
  EXPECT_EQ(CountNonFinite(DType::kF64, std::as_bytes(std::span(values))), (NonFinite{0, 2}));
}

TEST(NonFinite, IsFoundWhereverItIs) {
  for (const DType dtype : kFloatTypes) {
    const size_t length = 40'001;
    std::vector<std::byte> stored(length * DTypeSize(dtype));
    EXPECT_EQ(CountNonFinite(dtype, stored), NonFinite());
    NonFinite expected;
    for (const size_t at : {0, 1, 8191, 8192, 16'383, 32'768, 40'000}) {
      StoreBits(dtype, Encode(dtype, at % 2 == 0 ? HUGE_VAL : std::nan("")), stored, at);
      expected += at % 2 == 0 ? NonFinite{0, 1} : NonFinite{1, 0};
      EXPECT_EQ(CountNonFinite(dtype, stored), expected) << DTypeName(dtype) << at;
    }
  }
}

}  // namespace
}  // namespace mergepipe
