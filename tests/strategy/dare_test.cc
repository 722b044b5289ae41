#include <gtest/gtest.h>

#include "mergepipe/kernels/philox.h"
#include "strategy/tensor_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

// SHA-256 of "mergepipe.dare/1\n7\nmodel.w" starts with these bytes (sha256sum); the key is
// little-endian.
constexpr PhiloxKey kSeed7 = {0x87dcd315, 0xca947853};

std::vector<float> ReferenceDare(const StrategyOptions& options, const TensorDeltas& tensor,
                                 PhiloxKey key) {
  double total = 0;
  for (const double weight : options.weights) total += weight;
  std::vector<float> merged;
  for (size_t i = 0; i < tensor.size(); ++i) {
    float sum = 0;
    for (size_t k = 0; k < tensor.deltas.size(); ++k) {
      const auto words =
          Philox({static_cast<uint32_t>(i / 4), 0, static_cast<uint32_t>(k), 0}, key);
      const bool kept = words[i % 4] < std::floor(options.density * 4294967296.0);
      if (!tensor.Present(k, i) || !kept) continue;
      const float rescaled = tensor.deltas[k][i] / static_cast<float>(options.density);
      volatile float product = static_cast<float>(options.weights[k] / total) * rescaled;
      sum = sum + product;
    }
    merged.push_back(static_cast<float>(options.lambda) * sum);
  }
  return merged;
}

TEST(Dare, AgreesWithTheDefinition) {
  for (const size_t size : {0, 1, 17, 1000, 5000}) {
    for (const double density : {1e-9, 0.3, 0.5, 1.0}) {
      const StrategyOptions options{
          .name = "dare", .density = density, .weights = {1.0, 0.3, 7.0}, .lambda = 0.7, .seed = 7};
      const auto tensor = SampleTensor(3, size, 1501, size);
      ExpectSame(Merge(options, tensor), ReferenceDare(options, tensor, kSeed7));
    }
  }
}

TEST(Dare, DoesNotDependOnTheBlockSize) {
  const StrategyOptions options{.name = "dare", .density = 0.5, .weights = {1.0, 2.0}, .seed = 7};
  auto tensor = SampleTensor(2, 4000, 4000, 3);
  tensor.selected = {{true}, {true}};
  const auto whole = Merge(options, tensor);
  tensor.block_size = 37;
  tensor.selected.assign(2, std::vector<bool>(tensor.blocks(), true));
  ExpectSame(Merge(options, tensor), whole);
}

TEST(Dare, KeepsEverythingAtDensityOneAndTheShareBelow) {
  const size_t size = 100000;
  const TensorDeltas tensor{size, {std::vector<float>(size, 1.0f)}, {{true}}};
  StrategyOptions options{.name = "dare", .density = 1.0, .weights = {1.0}};
  EXPECT_EQ(Merge(options, tensor), tensor.deltas[0]);
  options.density = 0.25;
  const auto merged = Merge(options, tensor);
  const auto kept = std::count(merged.begin(), merged.end(), 4.0f);
  EXPECT_EQ(kept + std::count(merged.begin(), merged.end(), 0.0f), static_cast<long>(size));
  EXPECT_NEAR(static_cast<double>(kept), 25000.0, 5 * std::sqrt(size * 0.25 * 0.75));
}

TEST(Dare, DrawsByTensorExpertAndSeed) {
  const size_t size = 256;
  const std::vector<float> ones(size, 1.0f);
  const TensorDeltas first{size, {ones, ones}, {{true}, {false}}};
  const TensorDeltas second{size, {ones, ones}, {{false}, {true}}};
  StrategyOptions options{.name = "dare", .density = 0.5, .weights = {1.0, 1.0}};
  const auto merged = ApplyAll(first, *Start(options, first));
  EXPECT_EQ(merged, ApplyAll(first, *Start(options, first)));
  EXPECT_NE(merged, ApplyAll(second, *Start(options, second)));
  EXPECT_NE(merged, ApplyAll(first, *Start(options, first, 0, "model.v")));
  options.seed = 1;
  EXPECT_NE(merged, ApplyAll(first, *Start(options, first)));
}

}  // namespace
}  // namespace mergepipe
