#include "mergepipe/kernels/avg.h"
#include "strategy/block_local.h"
#include "strategy/coefficients.h"
#include "strategy/option_checks.h"
#include "strategy/rows.h"
#include "strategy/tiles.h"

namespace mergepipe {
namespace {

class AvgMerge final : public BlockLocalMerge {
 public:
  AvgMerge(std::vector<float> coefficients, float lambda)
      : coefficients_(std::move(coefficients)), lambda_(lambda) {}

  void Apply(const BlockDeltas& block, TileSink& sink) const override {
    std::vector<AvgInput> inputs(block.experts().size());
    ForEachMergedTile(block.size(), sink, [&](uint64_t begin, std::span<float> merged) {
      for (size_t slot = 0; slot < inputs.size(); ++slot) {
        inputs[slot] = {Part(block.stored(slot), begin, merged.size()),
                        coefficients_[block.experts()[slot].value]};
      }
      MergeAvg(Part(block.base(), begin, merged.size()), inputs, lambda_, merged);
    });
  }

 private:
  std::vector<float> coefficients_;
  float lambda_;
};

class Avg final : public Strategy {
 public:
  explicit Avg(StrategyOptions options) : options_(std::move(options)) {}

  int ObservationRounds() const override { return 0; }
  uint64_t StatisticsBytes() const override { return 0; }
  std::unique_ptr<TensorMerge> StartTensor(const TensorContext&) const override {
    return std::make_unique<AvgMerge>(Coefficients(options_), static_cast<float>(options_.lambda));
  }

 private:
  StrategyOptions options_;
};

Status Check(const StrategyOptions& options) {
  ProblemList problems;
  CheckCoefficients(options, problems);
  CheckLambda(options, problems);
  return problems.ToStatus(ErrorKind::kUsage);
}

}  // namespace

constinit const StrategyRow kAvgRow = {
    .name = "avg",
    .help = "weighted mean of the deltas",
    .default_density = 1.0,
    .check = Check,
    .rounds = [](const StrategyOptions&) { return 0; },
    .largest_coefficients = [](const StrategyOptions& options)
        -> std::optional<std::vector<double>> { return LargestCoefficients(options, 1.0); },
    .make = [](const StrategyOptions& options) -> std::unique_ptr<Strategy> {
      return std::make_unique<Avg>(options);
    },
};

}  // namespace mergepipe
