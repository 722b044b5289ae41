#include "mergepipe/kernels/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "kernels/samples.h"
#include "mergepipe/kernels/philox.h"

namespace mergepipe {
namespace {

using namespace test;

constexpr size_t kSumLengths[] = {0,    1,    31,   32,   33,   63,    64,    65,    1000, 1023,
                                  1024, 1025, 1056, 2047, 2049, 65535, 65536, 65537, 70001};

std::vector<float> Values(const StoredElements& stored) {
  std::vector<float> values(stored.bytes.size() / DTypeSize(stored.dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(Decode(stored.dtype, LoadBits(stored.dtype, stored.bytes, i)));
  }
  return values;
}

std::vector<float> Deltas(const StoredElements& expert, const StoredElements& base) {
  std::vector<float> deltas = Values(expert);
  const std::vector<float> values = Values(base);
  for (size_t i = 0; i < deltas.size(); ++i) deltas[i] -= values[i];
  return deltas;
}

// The definition, one element after the other.
DeltaSums Reference(const std::vector<float>& deltas) {
  constexpr PhiloxKey kKey = {0x6d657267, 0x65706970};
  DeltaSums sums;
  std::array<double, 32> squares{};
  std::array<double, 32> chunk{};
  for (size_t i = 0; i < deltas.size(); ++i) {
    const float delta = deltas[i];
    if (delta != 0) ++sums.nonzeros;
    if (!std::isfinite(delta)) {
      ++sums.nonfinite;
    } else {
      const auto group = static_cast<uint32_t>(i / 32);
      const uint32_t signs = Philox({group / 4, 0, 0, 0}, kKey)[group % 4];
      const bool negative = ((signs >> (i % 32)) & 1) != 0;
      squares[i % 32] += static_cast<double>(delta) * static_cast<double>(delta);
      chunk[i % 32] += static_cast<double>(negative ? -delta : delta);
      sums.max_abs = std::max(sums.max_abs, std::fabs(delta));
    }
    if (i % 1024 == 1023 || i + 1 == deltas.size()) {
      const auto number = static_cast<uint32_t>(i / 1024);
      const uint32_t mask = Philox({number / 4, 0, 1, 0}, kKey)[number % 4] % 32;
      for (size_t lane = 0; lane < 32; ++lane) sums.sketch[lane ^ mask] += chunk[lane];
      chunk.fill(0);
    }
  }
  for (const double lane : squares) sums.sum_squares += lane;
  return sums;
}

auto Fields(const DeltaSums& sums) {
  std::vector<uint64_t> bits;
  for (const double number : sums.sketch) bits.push_back(std::bit_cast<uint64_t>(number));
  return std::tuple(std::bit_cast<uint64_t>(sums.sum_squares),
                    std::bit_cast<uint32_t>(sums.max_abs), sums.nonzeros, sums.nonfinite, bits);
}

void ExpectAsReference(const StoredElements& expert, const StoredElements& base) {
  const auto expected = Reference(Deltas(expert, base));
  ASSERT_EQ(Fields(SumDeltas(expert, base)), Fields(expected))
      << DTypeName(expert.dtype) << ' ' << DTypeName(base.dtype) << ' ' << base.bytes.size();
  ASSERT_EQ(std::bit_cast<uint64_t>(SumSquares(base)),
            std::bit_cast<uint64_t>(Reference(Values(base)).sum_squares));
}

TEST(Statistics, AreThoseOfThePlainSumForEveryPairOfTypes) {
  for (const DType expert_dtype : kFloatTypes) {
    for (const DType base_dtype : kFloatTypes) {
      for (const size_t length : kSumLengths) {
        const auto expert = SampleStored(expert_dtype, length, length + 1);
        const auto sample = SampleStored(base_dtype, length, length + 2);
        Misaligned base(sample.size());
        std::ranges::copy(sample, base.bytes().begin());
        ExpectAsReference({expert_dtype, expert}, {base_dtype, base.bytes()});
      }
    }
  }
}

std::span<const std::byte> Bytes(const std::vector<float>& values) {
  return std::as_bytes(std::span(values));
}

DeltaSums SumFloats(const std::vector<float>& deltas) {
  const std::vector<float> zeros(deltas.size(), 0.0f);
  return SumDeltas({DType::kF32, Bytes(deltas)}, {DType::kF32, Bytes(zeros)});
}

TEST(Statistics, NonFiniteDeltasCountAndNothingElse) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  std::vector<float> deltas(100, 0.0f);
  deltas[3] = -2.0f;
  deltas[40] = 0x1p-149f;
  const DeltaSums without = SumFloats(deltas);
  EXPECT_EQ(without.nonzeros, 2u);
  EXPECT_EQ(without.max_abs, 2.0f);
  EXPECT_EQ(without.sum_squares, 4.0 + 0x1p-298);
  deltas[7] = kInf;
  deltas[8] = -kInf;
  deltas[99] = std::numeric_limits<float>::quiet_NaN();
  const DeltaSums with = SumFloats(deltas);
  EXPECT_EQ(with.nonzeros, 5u);
  EXPECT_EQ(with.nonfinite, 3u);
  EXPECT_EQ(with.max_abs, without.max_abs);
  EXPECT_EQ(with.sum_squares, without.sum_squares);
  EXPECT_EQ(with.sketch, without.sketch);
}

TEST(Statistics, NegativeZeroIsNoDelta) {
  const std::vector<float> expert(33, -0.0f);
  const std::vector<float> base(33, 0.0f);
  const DeltaSums sums = SumDeltas({DType::kF32, Bytes(expert)}, {DType::kF32, Bytes(base)});
  EXPECT_EQ(Fields(sums), Fields(DeltaSums()));
}

TEST(Statistics, TheLargestFloatsDoNotOverflow) {
  constexpr float kMax = std::numeric_limits<float>::max();
  const DeltaSums sums = SumFloats(std::vector<float>(2048, kMax));
  EXPECT_EQ(sums.nonfinite, 0u);
  EXPECT_EQ(sums.max_abs, kMax);
  const double exact = 2048 * static_cast<double>(kMax) * static_cast<double>(kMax);
  EXPECT_NEAR(sums.sum_squares / exact, 1, 1e-12);
  for (const double number : sums.sketch) EXPECT_TRUE(std::isfinite(number));
}

template <typename A, typename B>
double Cosine(const A& a, const B& b) {
  double aa = 0;
  double bb = 0;
  double ab = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<double>(a[i]);
    const auto y = static_cast<double>(b[i]);
    aa += x * x;
    bb += y * y;
    ab += x * y;
  }
  return ab / std::sqrt(aa * bb);
}

struct Pair {
  std::vector<float> a;
  std::vector<float> b;
};

// Normal values where `has_energy`, of the given correlation.
template <typename HasEnergy>
Pair Correlated(size_t count, double correlation, uint64_t seed, HasEnergy has_energy) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  Pair pair{std::vector<float>(count), std::vector<float>(count)};
  for (size_t i = 0; i < count; ++i) {
    if (!has_energy(i)) continue;
    const double x = normal(random);
    const double y = normal(random);
    pair.a[i] = static_cast<float>(x);
    pair.b[i] = static_cast<float>(correlation * x + std::sqrt(1 - correlation * correlation) * y);
  }
  return pair;
}

struct Spread {
  double mean = 0;
  double deviation = 0;
};

// Error of the estimated cosines over many blocks.
template <typename HasEnergy>
Spread ErrorOfEstimates(double correlation, HasEnergy has_energy) {
  constexpr size_t kBlocks = 200;
  constexpr size_t kElements = 65536;
  Spread error;
  for (size_t block = 0; block < kBlocks; ++block) {
    const Pair pair = Correlated(kElements, correlation, block, has_energy);
    const double estimate =
        Cosine(QuantizeSketch(SumFloats(pair.a).sketch), QuantizeSketch(SumFloats(pair.b).sketch));
    const double difference = estimate - Cosine(pair.a, pair.b);
    error.mean += difference / kBlocks;
    error.deviation += difference * difference / kBlocks;
  }
  error.deviation = std::sqrt(error.deviation);
  return error;
}

// 32 independent projections estimate a cosine c with deviation (1 - c^2) / sqrt(32).
void ExpectGoodEstimates(const char* what, double correlation, const Spread& error) {
  const double expected = (1 - correlation * correlation) / std::sqrt(32.0);
  EXPECT_LT(std::fabs(error.mean), 0.25 * expected + 0.005) << what << ' ' << correlation;
  EXPECT_LT(error.deviation, 1.25 * expected + 0.005) << what << ' ' << correlation;
}

TEST(Sketch, EstimatesCosines) {
  for (const double correlation : {-0.9, 0.0, 0.5, 0.95}) {
    ExpectGoodEstimates("all", correlation,
                        ErrorOfEstimates(correlation, [](size_t) { return true; }));
  }
}

TEST(Sketch, EstimatesCosinesOfASingleColumn) {
  for (const double correlation : {-0.3, 0.0, 0.5, 0.95}) {
    // 64 elements of 64 chunks in one lane of each: fewer independent numbers, a wider spread.
    const Spread wide = ErrorOfEstimates(correlation, [](size_t i) { return i % 1024 == 417; });
    EXPECT_LT(std::fabs(wide.mean), 0.06) << correlation;
    EXPECT_LT(wide.deviation, 0.35) << correlation;
    const Spread narrow = ErrorOfEstimates(correlation, [](size_t i) { return i % 64 == 17; });
    ExpectGoodEstimates("64 columns", correlation, narrow);
  }
}

TEST(Sketch, OfTheNegativeIsTheNegative) {
  const Pair pair = Correlated(5000, 0.5, 1, [](size_t) { return true; });
  std::vector<float> negative = pair.a;
  for (float& value : negative) value = -value;
  const auto sketch = SumFloats(pair.a).sketch;
  const auto negated = SumFloats(negative).sketch;
  for (size_t i = 0; i < sketch.size(); ++i) EXPECT_EQ(sketch[i], -negated[i]);
}

TEST(QuantizeSketch, TheLargestBecomes127) {
  std::array<double, 32> sketch{};
  EXPECT_EQ(QuantizeSketch(sketch), (std::array<int8_t, 32>{}));
  sketch[0] = 254;
  sketch[1] = -254;
  sketch[2] = 1;  // 0.5: to even
  sketch[3] = 3;  // 1.5: to even
  sketch[4] = -3;
  sketch[5] = 1.1;
  sketch[6] = 0.9;
  EXPECT_EQ(QuantizeSketch(sketch), (std::array<int8_t, 32>{127, -127, 0, 2, -2, 1}));
}

TEST(QuantizeSketch, TakesAnyMagnitude) {
  for (const double scale : {0x1p-149, 1e-30, 1e30, 1e300}) {
    std::array<double, 32> sketch{};
    for (size_t i = 0; i < sketch.size(); ++i) {
      sketch[i] = scale * (static_cast<double>(i) * 8 - 127);
    }
    const auto quantized = QuantizeSketch(sketch);
    for (size_t i = 0; i < sketch.size(); ++i) {
      EXPECT_EQ(quantized[i], static_cast<int>(i) * 8 - 127) << scale;
    }
  }
}

}  // namespace
}  // namespace mergepipe
