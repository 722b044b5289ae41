#include <gtest/gtest.h>

#include <functional>

#include "strategy/tensor_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

// The threshold of some values, `unseen` zeros included, by sorting.
float ReferenceThreshold(std::vector<float> values, size_t unseen, double density) {
  for (float& value : values) value = std::isnan(value) ? 0.0f : std::fabs(value);
  values.resize(values.size() + unseen, 0.0f);
  std::sort(values.begin(), values.end(), std::greater<>());
  const auto m = static_cast<size_t>(std::floor(density * static_cast<double>(values.size())));
  return values.empty() ? 0.0f : values[std::max<size_t>(m, 1) - 1];
}

std::vector<float> ReferenceTies(const StrategyOptions& options, const TensorDeltas& tensor,
                                 size_t unseen = 0) {
  const size_t experts = tensor.deltas.size();
  // thresholds[k][b]: the same for all blocks unless the scope is the block.
  std::vector<std::vector<float>> thresholds(experts, std::vector<float>(tensor.blocks()));
  for (size_t k = 0; k < experts; ++k) {
    std::vector<float> all;
    for (size_t b = 0; b < tensor.blocks(); ++b) {
      if (!tensor.selected[k][b]) continue;
      std::vector<float> block;
      for (size_t i = b * tensor.block_size;
           i < std::min((b + 1) * tensor.block_size, tensor.size()); ++i) {
        block.push_back(tensor.deltas[k][i]);
      }
      thresholds[k][b] = ReferenceThreshold(block, 0, options.density);
      all.insert(all.end(), block.begin(), block.end());
    }
    if (!options.trim_by_block) {
      const float threshold = ReferenceThreshold(all, unseen, options.density);
      std::fill(thresholds[k].begin(), thresholds[k].end(), threshold);
    }
  }
  std::vector<float> merged;
  for (size_t i = 0; i < tensor.size(); ++i) {
    std::vector<float> products;
    std::vector<float> weights;
    for (size_t k = 0; k < experts; ++k) {
      const float delta = tensor.deltas[k][i];
      if (!tensor.Present(k, i) || delta == 0) continue;
      if (!(std::fabs(delta) >= thresholds[k][i / tensor.block_size])) continue;
      weights.push_back(static_cast<float>(options.weights[k]));
      products.push_back(weights.back() * delta);
    }
    float vote = 0;
    for (const float product : products) vote += product;
    float numerator = 0;
    float denominator = 0;
    for (size_t j = 0; j < products.size(); ++j) {
      if (vote >= 0 ? products[j] > 0 : products[j] < 0) {
        numerator += products[j];
        denominator += weights[j];
      }
    }
    const auto lambda = static_cast<float>(options.lambda);
    if (!options.normalize) {
      merged.push_back(lambda * numerator);
    } else {
      merged.push_back(denominator == 0 ? 0.0f : lambda * (numerator / denominator));
    }
  }
  return merged;
}

StrategyOptions Options(double density, size_t experts) {
  StrategyOptions options{.name = "ties", .density = density, .weights = {}, .lambda = 0.7};
  for (size_t k = 0; k < experts; ++k)
    options.weights.push_back(1.0 + 0.3 * static_cast<double>(k));
  return options;
}

TEST(Ties, AgreesWithTheDefinition) {
  for (const bool by_block : {false, true}) {
    for (const bool normalize : {false, true}) {
      for (const size_t size : {0, 1, 17, 1000, 5000}) {
        for (const double density : {1e-9, 0.2, 0.6, 0.95, 1.0}) {
          StrategyOptions options = Options(density, 4);
          options.trim_by_block = by_block;
          options.normalize = normalize;
          const auto tensor = SampleTensor(4, size, 300, size + 1);
          EXPECT_EQ(Row(options).rounds(options), by_block ? 0 : 2);
          ExpectSame(Merge(options, tensor), ReferenceTies(options, tensor));
        }
      }
    }
  }
}

TEST(Ties, DoesNotDependOnHowTheBlocksAreSpread) {
  const StrategyOptions options = Options(0.3, 3);
  const auto tensor = SampleTensor(3, 6000, 100, 5);
  const auto expected = ReferenceTies(options, tensor);
  for (const size_t parts : {1, 2, 3, 7, 60, 100}) {
    const auto merge = Start(options, tensor);
    ObserveAll(tensor, *merge, parts);
    ExpectSame(ApplyAll(tensor, *merge), expected);
  }
}

TEST(Ties, CountsUnseenElementsAsZeros) {
  for (const uint64_t unseen : {0, 1, 500, 1999, 2000, 2001, 1000000}) {
    for (const double density : {0.01, 0.5, 1.0}) {
      const StrategyOptions options = Options(density, 2);
      auto tensor = SampleTensor(2, 2000, 500, 6, false);
      tensor.selected.assign(2, std::vector<bool>(4, true));
      const auto merge = Start(options, tensor, unseen);
      ObserveAll(tensor, *merge, 2);
      ExpectSame(ApplyAll(tensor, *merge), ReferenceTies(options, tensor, unseen));
    }
  }
}

TEST(Ties, KeepsAllEqualValuesAtTheThresholdAndNoZeros) {
  const TensorDeltas tensor{8, {{3, -2, 2, 2, -2, 1, 0, 0}}, {{true}}};
  StrategyOptions options{.name = "ties", .density = 0.25, .weights = {1.0}};
  EXPECT_EQ(Merge(options, tensor), (std::vector<float>{3, -2, 2, 2, -2, 0, 0, 0}));
  options.density = 0.01;
  EXPECT_EQ(Merge(options, tensor), (std::vector<float>{3, 0, 0, 0, 0, 0, 0, 0}));
  options.density = 1.0;
  EXPECT_EQ(Merge(options, tensor), tensor.deltas[0]);
  const TensorDeltas zeros{4, {{0.0f, -0.0f, 0.0f, 0.0f}}, {{true}}};
  EXPECT_EQ(Merge(options, zeros), std::vector<float>(4, 0.0f));
}

TEST(Ties, TakesThePositiveSignOnADraw) {
  const TensorDeltas tensor{2, {{2, -2}, {-2, 2}}, {{true}, {true}}};
  const StrategyOptions options{.name = "ties", .density = 1.0, .weights = {1.0, 1.0}};
  EXPECT_EQ(Merge(options, tensor), (std::vector<float>{2, 2}));
}

TEST(Ties, AgreesWithTheDefinitionWhereTensorsAreHeld) {
  for (const size_t size : {0, 1, 17, 1000, 70'000}) {
    for (const double density : {1e-9, 0.2, 0.6, 0.95, 1.0}) {
      for (const size_t parts : {1, 3}) {
        const StrategyOptions options = Options(density, 3);
        const auto tensor = SampleTensor(3, size, 3000, size + 1);
        const auto merge = Start(options, tensor, 0, "w", true);
        ObserveAll(tensor, *merge, parts);
        ExpectSame(ApplyAll(tensor, *merge), ReferenceTies(options, tensor));
      }
    }
  }
}

TEST(Ties, CountsUnseenElementsAsZerosWhereTensorsAreHeld) {
  for (const uint64_t unseen : {0, 1, 30'000, 59'999, 60'000, 60'001, 1'000'000}) {
    for (const double density : {0.01, 0.5, 1.0}) {
      const StrategyOptions options = Options(density, 2);
      auto tensor = SampleTensor(2, 60'000, 5000, 6, false);
      tensor.selected.assign(2, std::vector<bool>(12, true));
      const auto merge = Start(options, tensor, unseen, "w", true);
      ObserveAll(tensor, *merge, 2);
      ExpectSame(ApplyAll(tensor, *merge), ReferenceTies(options, tensor, unseen));
    }
  }
}

TEST(Ties, GoesOnFromWhatTheRoundsConcluded) {
  const StrategyOptions options = Options(0.3, 3);
  auto tensor = SampleTensor(3, 6000, 100, 9);
  tensor.selected[1].assign(tensor.blocks(), false);  // nothing is looked for there
  for (const bool held : {false, true}) {
    const auto observed = Start(options, tensor, 0, "w", held);
    ObserveAll(tensor, *observed);
    const std::string conclusion = observed->Conclusion();
    ASSERT_FALSE(conclusion.empty());
    const auto merge = Start(options, tensor, 0, "w", held);
    ASSERT_TRUE(merge->Conclude(conclusion).has_value());
    EXPECT_FALSE(merge->WantsRound());
    EXPECT_EQ(merge->Conclusion(), conclusion);
    ExpectSame(ApplyAll(tensor, *merge), ReferenceTies(options, tensor));

    for (size_t length = 0; length < conclusion.size(); ++length) {
      const Status cut = Start(options, tensor)->Conclude(conclusion.substr(0, length));
      ASSERT_FALSE(cut.has_value()) << length;
      EXPECT_EQ(cut.error().kind(), ErrorKind::kInternal);
    }
    EXPECT_FALSE(Start(options, tensor)->Conclude(conclusion + '\0').has_value());
  }
}

TEST(Ties, HasNothingToConcludeWhereBlocksAreTrimmedAlone) {
  StrategyOptions options = Options(0.3, 1);
  options.trim_by_block = true;
  const auto merge = Start(options, SampleTensor(1, 100, 10, 1));
  EXPECT_EQ(merge->Conclusion(), "");
  EXPECT_TRUE(merge->Conclude("").has_value());
  EXPECT_FALSE(merge->Conclude("x").has_value());
}

TEST(Ties, RefusesStatisticsThatDoNotFit) {
  const StrategyOptions options = Options(0.5, 1);
  const TensorDeltas tensor{4, {{1, 2, 3, 4}}, {{true}}};
  const auto merge = Start(options, tensor);
  const auto seen_twice = merge->NewStatistics();
  merge->Observe(BlockOf(tensor, 0), *seen_twice);
  merge->Observe(BlockOf(tensor, 0), *seen_twice);
  EXPECT_FALSE(merge->Finish(*seen_twice).has_value());

  const auto once = merge->NewStatistics();
  merge->Observe(BlockOf(tensor, 0), *once);
  ASSERT_TRUE(merge->Finish(*once).has_value());
  const auto finished = merge->Finish(*merge->NewStatistics());
  ASSERT_FALSE(finished.has_value());
  EXPECT_EQ(finished.error().kind(), ErrorKind::kInternal);
}

}  // namespace
}  // namespace mergepipe
