#include <gtest/gtest.h>

#include "hwy/targets.h"
#include "kernels/samples.h"
#include "mergepipe/base/hash.h"
#include "mergepipe/kernels/avg.h"
#include "mergepipe/kernels/convert.h"
#include "mergepipe/kernels/dare.h"
#include "mergepipe/kernels/delta.h"
#include "mergepipe/kernels/magnitude.h"
#include "mergepipe/kernels/nonfinite.h"
#include "mergepipe/kernels/output.h"
#include "mergepipe/kernels/philox.h"
#include "mergepipe/kernels/statistics.h"
#include "mergepipe/kernels/ties.h"

namespace mergepipe {
namespace {

using namespace test;

constexpr size_t kCount = 1003;

void HashFloats(std::span<const float> values, Hasher& hasher) {
  // Between kernels a NaN may have any payload; what is stored has not.
  std::vector<std::byte> stored(values.size() * 4);
  FromFloat(DType::kF32, values, stored);
  hasher.Update(stored);
}

void HashStored(Hasher& hasher) {
  for (const DType from : kFloatTypes) {
    const auto stored = SampleStored(from, kCount, 1);
    const auto delta = SampleFloats(kCount, 2);
    std::vector<float> values(kCount);
    ToFloat(from, stored, values);
    HashFloats(values, hasher);
    hasher.Update(CountNonFinite(from, stored).nan);
    for (const DType to : kFloatTypes) {
      std::vector<std::byte> out(kCount * DTypeSize(to));
      hasher.Update(WriteMerged({from, stored}, delta, to, out).inf);
      hasher.Update(out);
      hasher.Update(ConvertStored(from, stored, to, out).inf);
      hasher.Update(out);
      std::vector<float> difference(kCount);
      ComputeDelta({from, stored}, {to, out}, difference);
      HashFloats(difference, hasher);
    }
  }
}

void HashSums(Hasher& hasher) {
  std::vector<std::vector<float>> sums(5, std::vector<float>(kCount));
  const TiesSums spans{sums[0], sums[1], sums[2], sums[3], sums[4]};
  std::vector<float> sum(kCount);
  std::vector<float> dropped(kCount);
  std::vector<uint32_t> draws(kCount);
  for (uint32_t k = 0; k < 3; ++k) {
    const auto delta = SampleFloats(kCount, 3 + k);
    AddScaled(0.3f, delta, sum);
    DrawElements({1, 2}, k, 77, draws);
    hasher.Update(std::as_bytes(std::span(draws)));
    AddRescaled({uint64_t{1} << 31, 0.7f}, draws, 0.3f, delta, dropped);
    AddTrimmed(0.1f, 0.3f, delta, spans);
  }
  Scale(0.9f, sum);
  HashFloats(sum, hasher);
  HashFloats(dropped, hasher);
  ElectMean(spans, 0.9f, sum);
  HashFloats(sum, hasher);
  ElectSum(spans, 0.9f, sum);
  HashFloats(sum, hasher);
}

void HashFused(Hasher& hasher) {
  for (const DType dtype : kFloatTypes) {
    const auto base = SampleStored(dtype, kCount, 1);
    std::vector<std::vector<std::byte>> stored;
    for (uint64_t k = 0; k < 5; ++k) stored.push_back(SampleStored(dtype, kCount, 10 + k));
    std::vector<AvgInput> averaged;
    std::vector<TiesInput> trimmed;
    std::vector<float> sum(kCount);
    std::vector<uint32_t> draws(kCount);
    for (uint32_t k = 0; k < 5; ++k) {
      averaged.push_back({{dtype, stored[k]}, 0.3f});
      trimmed.push_back({{dtype, stored[k]}, 0.1f, 0.3f});
      DrawElements({1, 2}, k, 5, draws);
      AddRescaled({uint64_t{1} << 31, k % 2 == 0 ? 0.5f : 0.3f}, draws, 0.3f, {dtype, stored[k]},
                  {dtype, base}, sum);
    }
    HashFloats(sum, hasher);
    std::vector<float> merged(kCount);
    MergeAvg({dtype, base}, averaged, 0.9f, merged);
    HashFloats(merged, hasher);
    for (const auto election : {TiesElection::kMean, TiesElection::kSum}) {
      MergeTies({dtype, base}, trimmed, election, 0.9f, merged);
      HashFloats(merged, hasher);
    }
    BracketCounts counts;
    std::vector<uint32_t> between(kCount + kSplitSlack);
    const size_t found = SplitMagnitudes({dtype, stored[0]}, {dtype, base},
                                         {0x3f000000, 0x40000000}, counts, between);
    hasher.Update(std::as_bytes(std::span(between).first(found)));
    hasher.Update(counts.above + 3 * counts.at_least_high + 7 * counts.at_least_low);
  }
}

void HashStatistics(Hasher& hasher) {
  constexpr size_t kElements = 67'003;
  for (const DType from : kFloatTypes) {
    const auto base = SampleStored(from, kElements, 5);
    for (const DType to : kFloatTypes) {
      const auto expert = SampleStored(to, kElements, 6);
      const DeltaSums sums = SumDeltas({to, expert}, {from, base});
      hasher.Update(std::as_bytes(std::span(sums.sketch)));
      hasher.Update(std::bit_cast<uint64_t>(sums.sum_squares));
      hasher.Update(std::bit_cast<uint32_t>(sums.max_abs));
      hasher.Update(sums.nonzeros);
      hasher.Update(sums.nonfinite);
    }
    hasher.Update(std::bit_cast<uint64_t>(SumSquares({from, base})));
  }
}

Hash128 HashEverything() {
  Hasher hasher;
  HashStored(hasher);
  HashSums(hasher);
  HashFused(hasher);
  HashStatistics(hasher);
  return hasher.Finish();
}

TEST(Targets, GiveTheSameBits) {
  const int64_t supported = hwy::SupportedTargets();
  const Hash128 best = HashEverything();
  int targets = 0;
  for (int64_t left = supported; left != 0; left &= left - 1) {
    const int64_t target = left & -left;
    hwy::SetSupportedTargetsForTest(target);
    EXPECT_EQ(HashEverything(), best) << hwy::TargetName(target);
    ++targets;
  }
  hwy::SetSupportedTargetsForTest(0);
  EXPECT_GE(targets, 1);
}

}  // namespace
}  // namespace mergepipe
