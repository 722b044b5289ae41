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

// Base and experts as stored, and the deltas by the definition of the formats.
struct Inputs {
  DType dtype;
  std::vector<std::byte> base;
  std::vector<std::vector<std::byte>> experts;
  std::vector<DType> dtypes;

  // The experts have the base's type, but for one of type `odd`.
  Inputs(DType type, DType odd, size_t count, size_t length)
      : dtype(type), base(SampleStored(type, length, length)) {
    for (size_t k = 0; k < count; ++k) {
      dtypes.push_back(k == count / 2 ? odd : type);
      experts.push_back(SampleStored(dtypes.back(), length, 91 * length + k));
    }
  }
  StoredElements Base() const { return {dtype, base}; }
  StoredElements Expert(size_t k) const { return {dtypes[k], experts[k]}; }
  std::vector<float> Deltas(size_t i) const {
    std::vector<float> deltas;
    for (size_t k = 0; k < experts.size(); ++k) {
      const auto w = static_cast<float>(Decode(dtypes[k], LoadBits(dtypes[k], experts[k], i)));
      const auto w0 = static_cast<float>(Decode(dtype, LoadBits(dtype, base, i)));
      deltas.push_back(Add(w, -w0));
    }
    return deltas;
  }
};

constexpr size_t kCounts[] = {0, 1, 2, 3, 4, 7, 20, 65};

template <class Body>
void ForEachInputs(Body body) {
  for (const DType dtype : kFloatTypes) {
    for (const size_t count : kCounts) {
      for (const size_t length : {0, 1, 15, 16, 17, 33, 64, 1000}) {
        body(Inputs(dtype, dtype, count, length), length);
      }
    }
    for (const DType odd : kFloatTypes) body(Inputs(dtype, odd, 3, 1500), 1500);
  }
}

float WeightOf(size_t k) { return 0.25f + 0.3f * static_cast<float>(k % 5); }

TEST(MergeAvg, AgreesWithTheReferenceForAllTypesAndNumbersOfExperts) {
  ForEachInputs([](const Inputs& inputs, size_t length) {
    std::vector<AvgInput> experts;
    for (size_t k = 0; k < inputs.experts.size(); ++k)
      experts.push_back({inputs.Expert(k), WeightOf(k)});
    std::vector<float> merged(length, 42.0f);
    MergeAvg(inputs.Base(), experts, 0.7f, merged);
    for (size_t i = 0; i < length; ++i) {
      const auto deltas = inputs.Deltas(i);
      float sum = 0;
      for (size_t k = 0; k < deltas.size(); ++k) sum = Add(sum, Multiply(WeightOf(k), deltas[k]));
      ASSERT_TRUE(SameFloat(merged[i], Multiply(0.7f, sum))) << i;
    }
  });
}

TEST(MergeTies, AgreesWithTheReferenceForAllTypesAndNumbersOfExperts) {
  const float thresholds[] = {0.0f, 0.5f, 0x1p-140f, HUGE_VALF, 1e-3f};
  ForEachInputs([&](const Inputs& inputs, size_t length) {
    std::vector<TiesInput> experts;
    std::vector<float> limits;
    std::vector<float> weights;
    for (size_t k = 0; k < inputs.experts.size(); ++k) {
      limits.push_back(thresholds[k % std::size(thresholds)]);
      weights.push_back(k == 1 ? 0.0f : WeightOf(k));
      experts.push_back({inputs.Expert(k), limits[k], weights[k]});
    }
    for (const bool mean : {false, true}) {
      std::vector<float> merged(length, 42.0f);
      MergeTies(inputs.Base(), experts, mean ? TiesElection::kMean : TiesElection::kSum, 0.9f,
                merged);
      for (size_t i = 0; i < length; ++i) {
        const float expected = ReferenceTies(inputs.Deltas(i), limits, weights, 0.9f, mean);
        ASSERT_TRUE(SameFloat(merged[i], expected)) << i << ' ' << merged[i] << ' ' << expected;
      }
    }
  });
}

TEST(AddRescaled, AgreesWithTheReferenceForAllTypes) {
  for (const float keep_rate : {0.5f, 0.3f, 1.0f, 0x1p-20f}) {
    ForEachInputs([&](const Inputs& inputs, size_t length) {
      if (inputs.experts.empty() || inputs.experts.size() > 3) return;
      const size_t k = inputs.experts.size() / 2;
      std::vector<uint32_t> draws(length);
      for (size_t i = 0; i < length; ++i) draws[i] = static_cast<uint32_t>(i * 0x9e3779b1);
      const uint64_t limit = uint64_t{1} << 31;
      if (length > 2) draws[1] = static_cast<uint32_t>(limit - 1);
      if (length > 2) draws[2] = static_cast<uint32_t>(limit);
      std::vector<float> sum(length, 0.125f);
      AddRescaled({limit, keep_rate}, draws, 0.3f, inputs.Expert(k), inputs.Base(), sum);
      for (size_t i = 0; i < length; ++i) {
        const float share = Multiply(0.3f, inputs.Deltas(i)[k] / keep_rate);
        const float expected = draws[i] < limit ? Add(0.125f, share) : 0.125f;
        ASSERT_TRUE(SameFloat(sum[i], expected)) << i;
      }
    });
  }
}

TEST(MergeDeathTest, RefusesOtherLengths) {
  const Inputs inputs(DType::kBF16, DType::kBF16, 2, 32);
  std::vector<float> merged(32);
  std::vector<AvgInput> experts = {{inputs.Expert(0), 1.0f}, {inputs.Expert(1), 1.0f}};
  experts[1].stored.bytes = experts[1].stored.bytes.first(62);
  EXPECT_DEATH(MergeAvg(inputs.Base(), experts, 1.0f, merged), "");
}

}  // namespace
}  // namespace mergepipe
