#include <algorithm>
#include <bit>
#include <cmath>

#include "mergepipe/kernels/ties.h"
#include "strategy/block_local.h"
#include "strategy/magnitude_sample.h"
#include "strategy/number_codec.h"
#include "strategy/option_checks.h"
#include "strategy/rows.h"
#include "strategy/threshold_search.h"
#include "strategy/tiles.h"

namespace mergepipe {
namespace {

// m: the rank, from 1, of the smallest magnitude that is kept of `count`.
uint64_t KeptRank(double density, uint64_t count) {
  return std::max<uint64_t>(
      1, static_cast<uint64_t>(std::floor(density * static_cast<double>(count))));
}

// Sign election and disjoint mean of trimmed deltas: what both scopes share.
class Election {
 public:
  explicit Election(const StrategyOptions& options)
      : weights_(options.weights.begin(), options.weights.end()),
        lambda_(static_cast<float>(options.lambda)),
        election_(options.normalize ? TiesElection::kMean : TiesElection::kSum) {}

  // `thresholds` by slot of `block`.
  void Apply(const BlockDeltas& block, std::span<const float> thresholds, TileSink& sink) const {
    std::vector<TiesInput> inputs(block.experts().size());
    ForEachMergedTile(block.size(), sink, [&](uint64_t begin, std::span<float> merged) {
      for (size_t slot = 0; slot < inputs.size(); ++slot) {
        inputs[slot] = {Part(block.stored(slot), begin, merged.size()), thresholds[slot],
                        weights_[block.experts()[slot].value]};
      }
      MergeTies(Part(block.base(), begin, merged.size()), inputs, election_, lambda_, merged);
    });
  }

 private:
  std::vector<float> weights_;
  float lambda_;
  TiesElection election_;
};

class BlockTies final : public BlockLocalMerge {
 public:
  explicit BlockTies(const StrategyOptions& options)
      : election_(options), density_(options.density) {}

  void Apply(const BlockDeltas& block, TileSink& sink) const override {
    std::vector<float> thresholds;
    for (size_t slot = 0; slot < block.experts().size(); ++slot) {
      thresholds.push_back(
          std::bit_cast<float>(BlockMagnitude(block, slot, KeptRank(density_, block.size()))));
    }
    election_.Apply(block, thresholds, sink);
  }

 private:
  Election election_;
  double density_;
};

RankedTensor Ranked(const TensorContext& tensor, double density) {
  RankedTensor ranked{std::string(tensor.name), {}, {}};
  for (const uint64_t selected : tensor.selected_elements) {
    ranked.selected.push_back(selected);
    ranked.ranks.push_back(KeptRank(density, selected));
  }
  return ranked;
}

class TensorTies final : public TensorMerge {
 public:
  TensorTies(const StrategyOptions& options, const TensorContext& tensor)
      : election_(options),
        selected_(tensor.selected_elements.begin(), tensor.selected_elements.end()),
        search_(tensor.held ? SearchBySample(Ranked(tensor, options.density))
                            : SearchByHistogram(Ranked(tensor, options.density))) {}

  bool WantsRound() const override { return !concluded_ && search_->WantsRound(); }
  std::unique_ptr<TensorStatistics> NewStatistics() const override {
    return search_->NewStatistics();
  }
  Result<std::unique_ptr<TensorStatistics>> ParseStatistics(std::string_view bytes) const override {
    return search_->ParseStatistics(bytes);
  }
  void Observe(const BlockDeltas& block, TensorStatistics& statistics) const override {
    search_->Observe(block, statistics);
  }
  Status Finish(const TensorStatistics& statistics) override { return search_->Finish(statistics); }

  std::string Conclusion() const override {
    std::string bytes;
    for (const float threshold : Thresholds()) PutNumber(std::bit_cast<uint32_t>(threshold), bytes);
    return bytes;
  }

  Status Conclude(std::string_view conclusion) override {
    std::vector<float> thresholds;
    for (size_t k = 0; k < selected_.size(); ++k) {
      const auto bits = TakeNumber(conclusion);
      if (!bits || *bits > UINT32_MAX) return Damaged();
      thresholds.push_back(std::bit_cast<float>(static_cast<uint32_t>(*bits)));
    }
    if (!conclusion.empty()) return Damaged();
    concluded_ = std::move(thresholds);
    return {};
  }

  void Apply(const BlockDeltas& block, TileSink& sink) const override {
    std::vector<float> thresholds;
    for (const ExpertIndex expert : block.experts()) {
      thresholds.push_back(concluded_ ? (*concluded_)[expert.value] : search_->Threshold(expert));
    }
    election_.Apply(block, thresholds, sink);
  }

 private:
  static Status Damaged() {
    return Fail(ErrorKind::kInternal, "ties", "the thresholds of an earlier attempt are damaged");
  }

  // One for each expert; 0 where nothing was looked for.
  std::vector<float> Thresholds() const {
    if (concluded_) return *concluded_;
    std::vector<float> thresholds;
    for (size_t k = 0; k < selected_.size(); ++k) {
      const ExpertIndex expert(static_cast<uint32_t>(k));
      thresholds.push_back(selected_[k] > 0 ? search_->Threshold(expert) : 0.0f);
    }
    return thresholds;
  }

  Election election_;
  std::vector<uint64_t> selected_;
  std::optional<std::vector<float>> concluded_;  // by an earlier attempt
  std::unique_ptr<ThresholdSearch> search_;
};

int Rounds(const StrategyOptions& options) { return options.trim_by_block ? 0 : kHistogramRounds; }

class Ties final : public Strategy {
 public:
  explicit Ties(StrategyOptions options) : options_(std::move(options)) {}

  int ObservationRounds() const override { return Rounds(options_); }
  uint64_t StatisticsBytes() const override {
    return options_.trim_by_block ? 0 : kThresholdStatisticsBytes;
  }
  std::unique_ptr<TensorMerge> StartTensor(const TensorContext& tensor) const override {
    if (options_.trim_by_block) return std::make_unique<BlockTies>(options_);
    return std::make_unique<TensorTies>(options_, tensor);
  }

 private:
  StrategyOptions options_;
};

Status Check(const StrategyOptions& options) {
  ProblemList problems;
  CheckDensity(options, problems);
  CheckWeights(options, problems);
  if (options.normalize) {
    const auto negative = [](double weight) { return weight < 0.0; };
    const auto none = [](double weight) { return static_cast<float>(weight) == 0.0f; };
    if (std::ranges::any_of(options.weights, negative)) {
      problems.Add("--weights", "one is negative, and ties divides by their sum",
                   "change it, or add --no-normalize");
    } else if (!options.weights.empty() && std::ranges::all_of(options.weights, none)) {
      problems.Add("--weights", "all are 0, and ties divides by their sum",
                   "change them, or add --no-normalize");
    }
  }
  CheckLambda(options, problems);
  return problems.ToStatus(ErrorKind::kUsage);
}

}  // namespace

constinit const StrategyRow kTiesRow = {
    .name = "ties",
    .help = "keep the largest deltas, elect a sign, mean of those that agree",
    .default_density = 0.6,
    .check = Check,
    .rounds = Rounds,
    .largest_coefficients = [](const StrategyOptions&) -> std::optional<std::vector<double>> {
      return std::nullopt;  // signs and means depend on which experts are read
    },
    .make = [](const StrategyOptions& options) -> std::unique_ptr<Strategy> {
      return std::make_unique<Ties>(options);
    },
};

}  // namespace mergepipe
