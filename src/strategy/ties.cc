#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "mergepipe/kernels/magnitude.h"
#include "mergepipe/kernels/ties.h"
#include "strategy/block_local.h"
#include "strategy/magnitude_statistics.h"
#include "strategy/option_checks.h"
#include "strategy/rows.h"
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
        normalize_(options.normalize) {}

  // `thresholds` by slot of `block`.
  void Apply(const BlockDeltas& block, std::span<const float> thresholds,
             std::span<float> merged) const {
    ForEachTile(block.size(), [&](uint64_t begin, size_t length) {
      ApplyTile(block, thresholds, begin, merged.subspan(begin, length));
    });
  }

 private:
  void ApplyTile(const BlockDeltas& block, std::span<const float> thresholds, uint64_t begin,
                 std::span<float> merged) const {
    alignas(64) std::array<float, kTile> delta_storage;
    alignas(64) std::array<std::array<float, kTile>, 5> storage{};
    const size_t length = merged.size();
    const auto delta = std::span(delta_storage).first(length);
    const auto sum = [&](size_t i) { return std::span(storage[i]).first(length); };
    const TiesSums sums{sum(0), sum(1), sum(2), sum(3), sum(4)};
    for (size_t slot = 0; slot < block.experts().size(); ++slot) {
      block.Delta(slot, begin, delta);
      AddTrimmed(thresholds[slot], weights_[block.experts()[slot].value], delta, sums);
    }
    if (normalize_) {
      ElectMean(sums, lambda_, merged);
    } else {
      ElectSum(sums, lambda_, merged);
    }
  }

  std::vector<float> weights_;
  float lambda_;
  bool normalize_;
};

class BlockTies final : public BlockLocalMerge {
 public:
  explicit BlockTies(const StrategyOptions& options)
      : election_(options), density_(options.density) {}

  void Apply(const BlockDeltas& block, std::span<float> merged) const override {
    std::vector<float> thresholds;
    for (size_t slot = 0; slot < block.experts().size(); ++slot) {
      const auto delta = merged;  // not needed yet, and as long as the block
      block.Delta(slot, 0, delta);
      thresholds.push_back(LargestMagnitude(delta, KeptRank(density_, block.size())));
    }
    election_.Apply(block, thresholds, merged);
  }

 private:
  Election election_;
  double density_;
};

// Where an expert's threshold lies, as far as the finished rounds tell. It is 0, and needs no more
// rounds, if the rank is beyond what was observed: the rest are blocks known equal to the base.
struct Threshold {
  bool is_zero = false;
  uint32_t bits = 0;    // the digits found so far
  uint64_t rank = 0;    // among the values with these digits
  uint64_t values = 0;  // how many there are
};

class TensorTies final : public TensorMerge {
 public:
  TensorTies(const StrategyOptions& options, const TensorContext& tensor)
      : election_(options),
        tensor_(tensor.name),
        selected_(tensor.selected_elements.begin(), tensor.selected_elements.end()),
        thresholds_(selected_.size()) {
    for (size_t k = 0; k < selected_.size(); ++k) {
      thresholds_[k].rank = KeptRank(options.density, selected_[k]);
    }
  }

  std::unique_ptr<TensorStatistics> NewStatistics(int round) const override {
    return std::make_unique<MagnitudeStatistics>(selected_.size(), Digit(round, 0).bins());
  }

  Result<std::unique_ptr<TensorStatistics>> ParseStatistics(int round,
                                                            std::string_view bytes) const override {
    return MagnitudeStatistics::Parse(Digit(round, 0).bins(), selected_, bytes);
  }

  void Observe(int round, const BlockDeltas& block, TensorStatistics& statistics) const override {
    auto& magnitudes = static_cast<MagnitudeStatistics&>(statistics);
    alignas(64) std::array<float, kTile> storage;
    for (size_t slot = 0; slot < block.experts().size(); ++slot) {
      const ExpertIndex expert = block.experts()[slot];
      const Threshold& threshold = thresholds_[expert.value];
      if (threshold.is_zero) continue;
      ForEachTile(block.size(), [&](uint64_t begin, size_t length) {
        const auto delta = std::span(storage).first(length);
        block.Delta(slot, begin, delta);
        magnitudes.Count(expert, Digit(round, threshold.bits), delta);
      });
    }
  }

  Status Finish(int round, const TensorStatistics& statistics) override {
    const auto& magnitudes = static_cast<const MagnitudeStatistics&>(statistics);
    for (uint32_t k = 0; k < selected_.size(); ++k) {
      MERGEPIPE_RETURN_IF_ERROR(FinishExpert(round, ExpertIndex(k), magnitudes));
    }
    return {};
  }

  void Apply(const BlockDeltas& block, std::span<float> merged) const override {
    std::vector<float> thresholds;
    for (const ExpertIndex expert : block.experts()) {
      thresholds.push_back(std::bit_cast<float>(thresholds_[expert.value].bits));
    }
    election_.Apply(block, thresholds, merged);
  }

 private:
  static MagnitudeDigit Digit(int round, uint32_t prefix) {
    return round == 0 ? MagnitudeDigit{15, 16, 0} : MagnitudeDigit{0, 15, prefix};
  }

  Status FinishExpert(int round, ExpertIndex expert, const MagnitudeStatistics& magnitudes) {
    Threshold& threshold = thresholds_[expert.value];
    if (threshold.is_zero) return {};
    const auto total = magnitudes.Total(expert);
    const bool fits =
        total && (round == 0 ? *total <= selected_[expert.value] : *total == threshold.values);
    if (!fits) {
      return Fail(ErrorKind::kInternal, tensor_,
                  fmt::format("round {} of ties saw other elements of expert {} than planned",
                              round, expert.value + 1));
    }
    const auto bins = magnitudes.Bins(expert);
    const auto position = FindRank(bins, threshold.rank);
    if (!position) {
      threshold = {.is_zero = true};
      return {};
    }
    threshold.bits = (threshold.bits << Digit(round, 0).width) | position->bin;
    threshold.rank = position->rank;
    threshold.values = bins[position->bin];
    return {};
  }

  Election election_;
  std::string tensor_;
  std::vector<uint64_t> selected_;
  std::vector<Threshold> thresholds_;
};

int Rounds(const StrategyOptions& options) { return options.trim_by_block ? 0 : 2; }

class Ties final : public Strategy {
 public:
  explicit Ties(StrategyOptions options) : options_(std::move(options)) {}

  int ObservationRounds() const override { return Rounds(options_); }
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
