#include "mergepipe/kernels/magnitude.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "kernels/samples.h"

namespace mergepipe {
namespace {

using namespace test;

float ReferenceLargest(std::vector<float> values, uint64_t rank) {
  for (float& value : values) value = std::isnan(value) ? 0.0f : std::fabs(value);
  std::sort(values.begin(), values.end(), std::greater<>());
  return rank <= values.size() ? values[rank - 1] : 0.0f;
}

TEST(LargestMagnitude, AgreesWithASort) {
  for (const size_t length : kLengths) {
    const auto values = SampleFloats(length, length + 17);
    for (uint64_t rank = 1; rank <= length + 2; rank += 1 + length / 20) {
      ASSERT_TRUE(SameFloat(LargestMagnitude(values, rank), ReferenceLargest(values, rank)))
          << length << ' ' << rank;
    }
  }
}

TEST(LargestMagnitude, TellsNeighbouringFloatsApart) {
  std::vector<float> values;
  for (uint32_t i = 0; i < 5000; ++i) {
    const auto value = std::bit_cast<float>(0x3f7ff800u + (i * 7) % 5000);
    values.push_back(i % 2 == 0 ? value : -value);
  }
  for (uint64_t rank = 1; rank <= 5000; rank += 97) {
    ASSERT_EQ(LargestMagnitude(values, rank), ReferenceLargest(values, rank)) << rank;
  }
}

TEST(LargestMagnitude, HandlesEqualValues) {
  const std::vector<float> zeros(100, -0.0f);
  EXPECT_TRUE(SameFloat(LargestMagnitude(zeros, 1), 0.0f));
  std::vector<float> equal(100, -2.5f);
  equal[50] = 7.0f;
  EXPECT_EQ(LargestMagnitude(equal, 1), 7.0f);
  EXPECT_EQ(LargestMagnitude(equal, 2), 2.5f);
  EXPECT_EQ(LargestMagnitude(equal, 100), 2.5f);
}

TEST(CountMagnitudes, CountsADigitBelowAPrefix) {
  const float values[] = {1.0f, -1.0f, std::nanf(""), 0.0f, HUGE_VALF, 1.0f + 0x1p-23f};
  std::vector<uint64_t> high(65536);
  CountMagnitudes({15, 16, 0}, values, high);
  EXPECT_EQ(high[0x3f800000 >> 15], 3u);
  EXPECT_EQ(high[0], 2u);
  EXPECT_EQ(high[0x7f800000 >> 15], 1u);
  std::vector<uint64_t> low(32768);
  CountMagnitudes({0, 15, 0x3f800000 >> 15}, values, low);
  EXPECT_EQ(low[0], 2u);
  EXPECT_EQ(low[1], 1u);
  EXPECT_EQ(std::count(low.begin(), low.end(), 0u), 32766);
}

TEST(FindRank, WalksFromTheLargest) {
  const uint64_t bins[] = {2, 0, 3, 1};
  EXPECT_EQ(FindRank(bins, 1), (BinRank{3, 1}));
  EXPECT_EQ(FindRank(bins, 2), (BinRank{2, 1}));
  EXPECT_EQ(FindRank(bins, 4), (BinRank{2, 3}));
  EXPECT_EQ(FindRank(bins, 5), (BinRank{0, 1}));
  EXPECT_EQ(FindRank(bins, 6), (BinRank{0, 2}));
  EXPECT_EQ(FindRank(bins, 7), std::nullopt);
  EXPECT_EQ(FindRank({}, 1), std::nullopt);
}

}  // namespace
}  // namespace mergepipe
