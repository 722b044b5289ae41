#include "mergepipe/kernels/magnitude.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/samples.h"

namespace mergepipe {
namespace {

using namespace test;

uint32_t ReferenceMagnitude(float delta) {
  return std::isnan(delta) ? 0 : std::bit_cast<uint32_t>(std::fabs(delta));
}

struct Pair {
  std::vector<std::byte> expert;
  Misaligned base;
  DType expert_dtype;
  DType base_dtype;
  std::vector<float> deltas;

  Pair(DType expert_type, DType base_type, size_t length)
      : expert(SampleStored(expert_type, length, length + 1)),
        base(length * DTypeSize(base_type)),
        expert_dtype(expert_type),
        base_dtype(base_type) {
    const auto sample = SampleStored(base_type, length, length + 2);
    std::ranges::copy(sample, base.bytes().begin());
    // Some deltas are 0.
    for (size_t i = 0; expert_type == base_type && i < length; i += 5)
      StoreBits(expert_type, LoadBits(base_type, base.bytes(), i), expert, i);
    for (size_t i = 0; i < length; ++i) {
      const auto w = static_cast<float>(Decode(expert_type, LoadBits(expert_type, expert, i)));
      const auto w0 = static_cast<float>(Decode(base_type, LoadBits(base_type, base.bytes(), i)));
      deltas.push_back(static_cast<float>(static_cast<double>(w) - static_cast<double>(w0)));
    }
  }
  StoredElements Expert() const { return {expert_dtype, expert}; }
  StoredElements Base() { return {base_dtype, base.bytes()}; }
};

template <class Body>
void ForEachPair(Body body) {
  for (const DType expert : kFloatTypes) {
    for (const DType base : kFloatTypes) {
      for (const size_t length : kLengths) body(Pair(expert, base, length));
      body(Pair(expert, base, 5003));
    }
  }
}

void ExpectSplit(Pair& pair, const MagnitudeBracket& bracket) {
  BracketCounts expected{10, 20, 30};
  std::vector<uint32_t> inside;
  for (const float delta : pair.deltas) {
    const uint32_t magnitude = ReferenceMagnitude(delta);
    if (std::isnan(delta)) continue;
    expected.above += magnitude > bracket.high ? 1 : 0;
    expected.at_least_high += magnitude >= bracket.high ? 1 : 0;
    expected.at_least_low += magnitude >= bracket.low ? 1 : 0;
    if (magnitude > bracket.low && magnitude < bracket.high) inside.push_back(magnitude);
  }
  BracketCounts counts{10, 20, 30};
  std::vector<uint32_t> between(pair.deltas.size() + kSplitSlack + 1, 42);
  const size_t found = SplitMagnitudes(pair.Expert(), pair.Base(), bracket, counts,
                                       std::span(between).first(between.size() - 1));
  EXPECT_EQ(between.back(), 42u);
  between.resize(found);
  EXPECT_EQ(between, inside);
  EXPECT_EQ(counts, expected);
}

TEST(DeltaMagnitudes, AreTheDeltasBits) {
  ForEachPair([](Pair pair) {
    std::vector<uint32_t> magnitudes(pair.deltas.size());
    DeltaMagnitudes(pair.Expert(), pair.Base(), magnitudes);
    for (size_t i = 0; i < magnitudes.size(); ++i)
      ASSERT_EQ(magnitudes[i], ReferenceMagnitude(pair.deltas[i])) << i;
  });
}

TEST(SplitMagnitudes, AgreesWithTheReferenceForEveryPairOfTypes) {
  const MagnitudeBracket brackets[] = {{0, kLargestMagnitude},
                                       {0, 0},
                                       {0, 1},
                                       {1, 0x3f800000},
                                       {0x3f800000, 0x3f800000},
                                       {0x3e000000, 0x3f900000},
                                       {0x7f7fffff, kLargestMagnitude},
                                       {kLargestMagnitude, kLargestMagnitude}};
  ForEachPair([&](Pair pair) {
    for (const auto& bracket : brackets) ExpectSplit(pair, bracket);
  });
}

TEST(CountMagnitudes, AgreesWithTheReferenceForEveryPairOfTypes) {
  const MagnitudeDigit digits[] = {{15, 16, 0},
                                   {0, 15, 0},
                                   {0, 15, 0x3f800000 >> 15},
                                   {0, 15, kLargestMagnitude >> 15},
                                   {10, 10, 0x3f8},
                                   {0, 10, 0x1fffff}};
  ForEachPair([&](Pair pair) {
    for (const MagnitudeDigit& digit : digits) {
      std::vector<uint64_t> expected(digit.bins());
      std::vector<uint64_t> bins(digit.bins());
      for (const float delta : pair.deltas) {
        const uint32_t high = ReferenceMagnitude(delta) >> digit.shift;
        if (high >> digit.width == digit.prefix) ++expected[high % digit.bins()];
      }
      CountMagnitudes(digit, pair.Expert(), pair.Base(), bins);
      ASSERT_EQ(bins, expected) << digit.shift << ' ' << digit.prefix;
    }
  });
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
