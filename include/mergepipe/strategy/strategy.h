#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mergepipe/base/error.h"
#include "mergepipe/plan/strategy_options.h"
#include "mergepipe/strategy/block_deltas.h"

/// \file
/// What a merge computes for one tensor, apart from where the bytes come from and go to. A strategy
/// is two-phase: it *observes* blocks in rounds and *finishes* each round, then *applies* to
/// blocks. Block-local strategies have no rounds.
///
/// All arithmetic is float32 on exactly converted inputs, without contraction, sums in expert
/// order. The result must not depend on how blocks are spread over ranks and threads.
namespace mergepipe {

/// What a round of observation has seen so far. Merging must be associative over neighbouring
/// ranges of blocks, so that the result does not depend on the partition: use integers, or keep
/// floating-point values by block and add them in Finish.
class TensorStatistics {
 public:
  virtual ~TensorStatistics() = default;
  /// Appends what `next`, of the same type, saw in the blocks after this one's.
  virtual void Append(const TensorStatistics& next) = 0;
  virtual std::string Serialize() const = 0;
};

/// Known of a tensor before any of its blocks is read.
struct TensorContext {
  std::string_view name;
  /// For each expert (all of them, in order): elements of its selected blocks in the whole tensor,
  /// blocks known equal to the base included.
  std::span<const uint64_t> selected_elements;
  /// Whether the selected bytes stay in memory between rounds: then a further round costs no
  /// reading. Else every round reads them again, and there are at most StrategyRow::rounds. The
  /// same on all ranks that share the tensor.
  bool held = false;
};

/// Takes a block's merged delta, tile by tile.
class TileSink {
 public:
  virtual ~TileSink() = default;
  /// Elements [begin, begin + merged.size()) of the block. `merged` is valid during the call.
  virtual void Take(uint64_t begin, std::span<const float> merged) = 0;
};

/// A tensor being merged. Observe and Apply are called from several threads; Finish from one, with
/// no other call at the same time. It counts its rounds itself: what the const functions below mean
/// is the round at hand.
class TensorMerge {
 public:
  virtual ~TensorMerge() = default;

  /// Whether every selected block must be observed (again) before Apply. Depends on the context and
  /// on the statistics of finished rounds alone, so all ranks that share a tensor agree.
  virtual bool WantsRound() const = 0;
  /// Statistics of no block.
  virtual std::unique_ptr<TensorStatistics> NewStatistics() const = 0;
  /// kInternal if the bytes are not what Serialize gave (they come from another rank).
  virtual Result<std::unique_ptr<TensorStatistics>> ParseStatistics(
      std::string_view bytes) const = 0;
  /// Adds one block to `statistics`.
  virtual void Observe(const BlockDeltas& block, TensorStatistics& statistics) const = 0;
  /// Ends the round with the statistics of the whole tensor.
  virtual Status Finish(const TensorStatistics& statistics) = 0;

  /// What all rounds together gave: enough to Apply without them. After the last round; empty for a
  /// tensor that has none.
  virtual std::string Conclusion() const = 0;
  /// Instead of the rounds: what Conclusion gave for the same tensor. kInternal if it is not that.
  virtual Status Conclude(std::string_view conclusion) = 0;

  /// Gives the merged delta, lambda included, of the whole block: tiles in order, without gaps.
  virtual void Apply(const BlockDeltas& block, TileSink& sink) const = 0;
};

class Strategy {
 public:
  virtual ~Strategy() = default;
  /// How often every selected block of a tensor that is not held must be observed before Apply; 0
  /// for block-local ones.
  virtual int ObservationRounds() const = 0;
  /// The most that the statistics of one round take in memory for each expert.
  virtual uint64_t StatisticsBytes() const = 0;
  virtual std::unique_ptr<TensorMerge> StartTensor(const TensorContext& tensor) const = 0;
};

/// One row of the table of strategies.
struct StrategyRow {
  std::string_view name;
  std::string_view help;
  double default_density;
  /// kUsage if the options do not fit, naming the option.
  Status (*check)(const StrategyOptions& options);
  /// Observation rounds where a tensor is not held, from the options alone: the planner charges
  /// reads by it.
  int (*rounds)(const StrategyOptions& options);
  /// For each expert the largest |c_k| of a strategy that adds c_k D_k with coefficients that do
  /// not depend on what is read; nothing for the others. The planner's error bound comes from it.
  std::optional<std::vector<double>> (*largest_coefficients)(const StrategyOptions& options);
  std::unique_ptr<Strategy> (*make)(const StrategyOptions& options);
};

/// All strategies, in the order of the help text.
std::span<const StrategyRow> StrategyTable();
/// The row of that name; kUsage naming the nearest one if there is none.
Result<const StrategyRow*> FindStrategy(std::string_view name);

}  // namespace mergepipe
