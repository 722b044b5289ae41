#include "mergepipe/plan/statistics.h"

#include <gtest/gtest.h>

#include "plan/plan_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

TEST(ProbeSample, LiesInTheMiddleOfTheBlock) {
  EXPECT_EQ(ProbeSample(640'000, DType::kBF16), (BlockSample{315'904, 8192}));
  EXPECT_EQ(ProbeSample(640'000, DType::kF16), (BlockSample{315'904, 8192}));
  EXPECT_EQ(ProbeSample(640'000, DType::kF32), (BlockSample{317'952, 4096}));
  EXPECT_EQ(ProbeSample(640'000, DType::kF64), (BlockSample{318'976, 2048}));
  EXPECT_EQ(ProbeSample(8195, DType::kBF16), (BlockSample{1, 8192}));
}

TEST(ProbeSample, IsAllOfASmallBlock) {
  for (const uint64_t elements : {uint64_t{0}, uint64_t{1}, uint64_t{8191}, uint64_t{8192}}) {
    EXPECT_EQ(ProbeSample(elements, DType::kBF16), (BlockSample{0, elements}));
  }
}

TEST(ProbeNumbering, CountsBlocksOfFloatTensors) {
  const ModelRecord base = MakeModel("base", {{"a", DType::kF32, {25}},
                                              {"ids", DType::kI64, {1000}},
                                              {"b", DType::kBF16, {5, 4}},
                                              {"none", DType::kF16, {0}},
                                              {"c", DType::kF64, {}}});
  const ProbeNumbering numbers(base.layout, 10);
  EXPECT_EQ(numbers.FirstNumber(0), 0u);
  EXPECT_EQ(numbers.FirstNumber(1), 3u);
  EXPECT_EQ(numbers.FirstNumber(2), 3u);
  EXPECT_EQ(numbers.FirstNumber(3), 5u);
  EXPECT_EQ(numbers.FirstNumber(4), 5u);
  EXPECT_EQ(numbers.Count(), 6u);
  EXPECT_EQ(numbers.Probed(1, 1).size(), 0u);
  EXPECT_EQ(numbers.Probed(3, 1).size(), 0u);
}

TEST(ProbeNumbering, ProbesTheMultiplesOfTheStride) {
  const ModelRecord base = MakeModel("base", {{"a", DType::kF32, {97}},
                                              {"ids", DType::kI32, {50}},
                                              {"b", DType::kF32, {3}},
                                              {"c", DType::kF32, {210}}});
  const ProbeNumbering numbers(base.layout, 10);
  for (uint64_t stride = 1; stride < 40; ++stride) {
    uint64_t number = 0;
    for (uint32_t t = 0; t < base.layout.tensors.size(); ++t) {
      const BlockSet probed = numbers.Probed(t, stride);
      for (uint64_t block = 0; block < probed.size(); ++block, ++number) {
        ASSERT_EQ(probed.Contains(BlockIndex(block)), number % stride == 0) << stride << ' ' << t;
      }
    }
    ASSERT_EQ(number, numbers.Count());
  }
}

}  // namespace
}  // namespace mergepipe
