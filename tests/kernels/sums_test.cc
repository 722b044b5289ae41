#include <gtest/gtest.h>

#include "kernels/samples.h"
#include "mergepipe/kernels/avg.h"
#include "mergepipe/kernels/dare.h"
#include "mergepipe/kernels/ties.h"

namespace mergepipe {
namespace {

using namespace test;

// A product of floats is exact in double, and a sum of two floats rounded to double and then to
// float is the float sum.
float Multiply(float a, float b) {
  return static_cast<float>(static_cast<double>(a) * static_cast<double>(b));
}
float Add(float a, float b) {
  return static_cast<float>(static_cast<double>(a) + static_cast<double>(b));
}

TEST(AddScaled, RoundsTheProductAndThenTheSum) {
  // Fused, the sum would be -2^-24 * 2^-24 apart from 0.
  const std::vector<float> delta(33, 1.0f - 0x1p-24f);
  std::vector<float> sum(33, -1.0f);
  AddScaled(1.0f + 0x1p-23f, delta, sum);
  const float product = Multiply(1.0f + 0x1p-23f, 1.0f - 0x1p-24f);
  const float fused = std::fma(1.0f + 0x1p-23f, 1.0f - 0x1p-24f, -1.0f);
  ASSERT_NE(Add(product, -1.0f), fused);
  for (const float value : sum) ASSERT_EQ(value, Add(product, -1.0f));
}

TEST(AddScaled, AgreesWithTheReference) {
  for (const size_t length : kLengths) {
    const auto delta = SampleFloats(length, length + 19);
    const auto before = SampleFloats(length, length + 23);
    auto sum = before;
    AddScaled(0.3f, delta, sum);
    auto scaled = sum;
    Scale(-1.7f, scaled);
    for (size_t i = 0; i < length; ++i) {
      ASSERT_TRUE(SameFloat(sum[i], Add(before[i], Multiply(0.3f, delta[i])))) << i;
      ASSERT_TRUE(SameFloat(scaled[i], Multiply(-1.7f, sum[i]))) << i;
    }
  }
}

TEST(AddRescaled, LeavesWhatIsDroppedAlone) {
  const float delta[] = {1.0f, 1.0f, 1.0f, std::nanf("")};
  const uint32_t draws[] = {99, 100, 0xffffffff, 100};
  float sum[] = {1.0f, 1.0f, 1.0f, 1.0f};
  AddRescaled({100, 0.3f}, draws, 0.7f, delta, sum);
  EXPECT_EQ(sum[0], Add(1.0f, Multiply(0.7f, 1.0f / 0.3f)));
  EXPECT_EQ(sum[1], 1.0f);
  EXPECT_EQ(sum[2], 1.0f);
  EXPECT_EQ(sum[3], 1.0f);
  float all[4] = {};
  AddRescaled({uint64_t{1} << 32, 1.0f}, draws, 1.0f, delta, all);
  EXPECT_EQ(all[2], 1.0f);
  EXPECT_TRUE(std::isnan(all[3]));
  float none[4] = {};
  AddRescaled({0, 1.0f}, draws, 1.0f, delta, none);
  EXPECT_EQ(none[0], 0.0f);
}

// Long-hand for one element, straight from the definition.
float ReferenceTies(std::span<const float> deltas, std::span<const float> thresholds,
                    std::span<const float> weights, float lambda, bool normalize) {
  const auto kept = [&](size_t k) {
    return deltas[k] != 0 && std::fabs(deltas[k]) >= thresholds[k];
  };
  float s = 0;
  for (size_t k = 0; k < deltas.size(); ++k) {
    if (kept(k)) s = Add(s, Multiply(weights[k], deltas[k]));
  }
  const bool positive = s >= 0;
  float numerator = 0;
  float denominator = 0;
  for (size_t k = 0; k < deltas.size(); ++k) {
    const float value = Multiply(weights[k], deltas[k]);
    if (!kept(k) || !(positive ? value > 0 : value < 0)) continue;
    numerator = Add(numerator, value);
    denominator = Add(denominator, weights[k]);
  }
  if (!normalize) return Multiply(lambda, numerator);
  if (denominator == 0) return 0.0f;
  return Multiply(lambda, numerator / denominator);
}

void ExpectTies(size_t length, std::span<const float> weights, bool normalize) {
  const float thresholds[] = {0.0f, 1.5f, 0x1p-140f, HUGE_VALF};
  std::vector<std::vector<float>> deltas;
  for (size_t k = 0; k < 4; ++k) deltas.push_back(SampleFloats(length, 31 * length + k));
  std::vector<std::vector<float>> sums(5, std::vector<float>(length));
  const TiesSums spans{sums[0], sums[1], sums[2], sums[3], sums[4]};
  for (size_t k = 0; k < 4; ++k) AddTrimmed(thresholds[k], weights[k], deltas[k], spans);
  std::vector<float> merged(length);
  (normalize ? ElectMean : ElectSum)(spans, 0.9f, merged);
  for (size_t i = 0; i < length; ++i) {
    const float element[] = {deltas[0][i], deltas[1][i], deltas[2][i], deltas[3][i]};
    const float expected = ReferenceTies(element, thresholds, weights, 0.9f, normalize);
    ASSERT_TRUE(SameFloat(merged[i], expected))
        << length << ' ' << i << ' ' << merged[i] << ' ' << expected;
  }
}

TEST(Ties, AgreesWithTheDefinition) {
  const float positive[] = {1.0f, 0.3f, 2.0f, 0.7f};
  const float some_zero[] = {0.0f, 0.3f, 0.0f, 1e-30f};
  const float mixed[] = {1.0f, -0.3f, 0.0f, -2.0f};
  for (const size_t length : kLengths) {
    ExpectTies(length, positive, true);
    ExpectTies(length, some_zero, true);
    ExpectTies(length, positive, false);
    ExpectTies(length, mixed, false);
  }
}

}  // namespace
}  // namespace mergepipe
