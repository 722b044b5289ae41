#include <gtest/gtest.h>

#include "strategy/tensor_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

std::vector<float> ReferenceAvg(const StrategyOptions& options, const TensorDeltas& tensor) {
  double total = 0;
  for (const double weight : options.weights) total += weight;
  std::vector<float> merged;
  for (size_t i = 0; i < tensor.size(); ++i) {
    float sum = 0;
    for (size_t k = 0; k < tensor.deltas.size(); ++k) {
      if (!tensor.Present(k, i)) continue;
      const double weight = options.weights[k];
      const auto a = static_cast<float>(options.normalize ? weight / total : weight);
      volatile float product = a * tensor.deltas[k][i];
      sum = sum + product;
    }
    merged.push_back(static_cast<float>(options.lambda) * sum);
  }
  return merged;
}

TEST(Avg, AgreesWithTheDefinition) {
  for (const size_t size : {0, 1, 17, 1000, 1024, 5000}) {
    for (const bool normalize : {true, false}) {
      const StrategyOptions options{
          .name = "avg", .weights = {1.0, 0.3, 7.0}, .lambda = 0.7, .normalize = normalize};
      const auto tensor = SampleTensor(3, size, 1500, size);
      ExpectSame(Merge(options, tensor), ReferenceAvg(options, tensor));
    }
  }
}

TEST(Avg, DividesByTheWeightsOfAllExpertsWhateverWasRead) {
  TensorDeltas tensor{4, {{8, 8, 8, 8}, {2, 2, 2, 2}}, {{true}, {false}}};
  const StrategyOptions options{.name = "avg", .weights = {1.0, 3.0}};
  EXPECT_EQ(Merge(options, tensor), (std::vector<float>{2, 2, 2, 2}));
  EXPECT_EQ(Row(options).rounds(options), 0);
}

TEST(Avg, HasNoStatistics) {
  const StrategyOptions options{.name = "avg", .weights = {1.0}};
  const auto tensor = SampleTensor(1, 10, 4, 1);
  const auto merge = Start(options, tensor);
  EXPECT_TRUE(merge->ParseStatistics("").has_value());
  EXPECT_FALSE(merge->ParseStatistics("x").has_value());
  const auto finished = merge->Finish(*merge->NewStatistics());
  ASSERT_FALSE(finished.has_value());
  EXPECT_EQ(finished.error().kind(), ErrorKind::kInternal);
}

}  // namespace
}  // namespace mergepipe
