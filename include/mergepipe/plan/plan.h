#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mergepipe/base/checked.h"
#include "mergepipe/base/dtype.h"
#include "mergepipe/base/error.h"
#include "mergepipe/base/hash.h"
#include "mergepipe/base/units.h"
#include "mergepipe/plan/block_set.h"
#include "mergepipe/plan/statistics.h"
#include "mergepipe/plan/strategy_options.h"

namespace mergepipe {

/// Largest --block-size, in elements: a rank holds some blocks of every expert at a time.
inline constexpr uint64_t kMaxBlockSize = uint64_t{1} << 24;

/// Most (block, expert) pairs of a plan, and so most blocks of a tensor: what planning can hold in
/// memory. 405B parameters and 20 experts make 13 million pairs at the default block size.
inline constexpr uint64_t kMaxBlocks = uint64_t{1} << 26;

/// What to do with a tensor that one input has and another lacks.
enum class MismatchPolicy { kError, kBase, kDrop };

/// Everything a user can say that decides the output's bytes.
struct PlanOptions {
  StrategyOptions strategy;
  std::string scoring = "l2cos";
  double top_p = 0.35;  ///< largest share of output blocks that may be touched, in (0, 1]
  std::optional<uint64_t>
      budget_bytes;                ///< of expert weights, for the whole command; none: unlimited
  uint64_t block_size = 640'000;   ///< elements
  std::optional<DType> out_dtype;  ///< of float tensors; none: as the base
  /// A tensor whose selected expert bytes fit here is read once even if its strategy observes it
  /// first.
  uint64_t resident_bytes = uint64_t{1280} * kMiB;
  bool allow_nonfinite = false;
  MismatchPolicy missing = MismatchPolicy::kError;  ///< an expert lacks a tensor: kError or kBase
  MismatchPolicy extra = MismatchPolicy::kError;  ///< an expert has another tensor: kError or kDrop

  bool operator==(const PlanOptions&) const = default;
};

struct PlannedModel {
  std::string id;
  Hash128 fingerprint;
  bool operator==(const PlannedModel&) const = default;
};

/// How the output tensor comes about.
enum class TensorRule {
  kMerge,  ///< by the strategy, in the touched blocks
  kBase,   ///< the base's bytes: an integer or bool tensor, or one that no expert has
};

/// Where an expert's version of a tensor comes from.
struct ExpertSource {
  bool present = false;
  std::string name;  ///< in the expert; differs from the tensor's when a tied head is resolved
  DType dtype = DType::kF32;  ///< as stored by the expert
  bool operator==(const ExpertSource&) const = default;
};

/// What a plan knew of one expert's deltas.
struct PlannedStatistics {
  StatisticsKind kind = StatisticsKind::kNone;
  Hash128 hash;  ///< over all statistics that were given; zero for kNone
  bool operator==(const PlannedStatistics&) const = default;
};

/// An upper bound on the L2 distance, over all elements of all tensors as they are stored, between
/// the output of a plan and that of the full read.
struct ErrorBound {
  double unread = 0;    ///< from what is not read: the norm of c_k D_k, summed over the experts
                        ///< that are not read in a block, then the root of the sum of squares
  double rounding = 0;  ///< at most so much comes from rounding both outputs
  double total = 0;     ///< of both: never more than unread + rounding
  bool operator==(const ErrorBound&) const = default;
};

/// The squared norm of one expert's delta in one tensor: of all blocks, and of those selected. An
/// estimate where it comes from a probe.
struct DeltaEnergy {
  double total = 0;
  double selected = 0;
  bool operator==(const DeltaEnergy&) const = default;
};

struct PlannedTensor {
  std::string name;
  DType dtype = DType::kF32;      ///< in the base
  DType out_dtype = DType::kF32;  ///< in the output
  std::vector<uint64_t> shape;
  TensorRule rule = TensorRule::kMerge;
  std::string reason;                 ///< of the rule, for people
  std::vector<ExpertSource> sources;  ///< one for each expert
  std::vector<BlockSet> selected;     ///< one for each expert
  /// One for each expert: blocks known to hold the base's values. They are never read, and count as
  /// selected where a strategy asks how much of a tensor is.
  std::vector<BlockSet> equal;
  /// One for each expert: nothing if its deltas are not known.
  std::vector<std::optional<DeltaEnergy>> energy;
  /// Why blocks are left unread: so many blocks with something to read are beyond --top-p; in the
  /// others it was the budget, and the best of it would have given so much score for a byte.
  uint64_t blocks_beyond_top_p = 0;
  double best_left_score_per_byte = 0;
  /// How often the selected blocks are read: once, or once more for each observation round if they
  /// do not fit PlanOptions::resident_bytes.
  uint32_t reads = 1;
  /// kBase only: the experts' bytes are read too, and compared with the base's.
  bool compare = false;

  uint64_t elements() const { return *CheckedProduct(shape); }
  uint64_t Blocks(uint64_t block_size) const { return CeilDivide(elements(), block_size); }
  /// Bytes of an expert's version; 0 if it has none. And of all versions.
  uint64_t ExpertBytes(size_t expert) const;
  uint64_t ExpertBytes() const;
  /// Elements of `block`: block_size, or fewer in the last one.
  uint64_t BlockElements(BlockIndex block, uint64_t block_size) const;
  /// Elements of the blocks in `blocks`.
  uint64_t ElementsOf(const BlockSet& blocks, uint64_t block_size) const;
  /// Elements that count as read of an expert: of its selected blocks, and of those known equal.
  uint64_t CountedElements(size_t expert, uint64_t block_size) const;
  /// Blocks for which at least one expert is selected.
  BlockSet Touched(uint64_t block_size) const;
  /// Expert bytes that one pass over the selected blocks reads.
  uint64_t SelectedBytes(uint64_t block_size) const;

  bool operator==(const PlannedTensor&) const = default;
};

/// A tensor of an expert that has no place in the output.
struct DroppedTensor {
  uint32_t expert = 0;
  std::string name;
  std::string reason;
  bool operator==(const DroppedTensor&) const = default;
};

/// Everything that decides the output's bytes, and nothing else: no times, paths or rank count.
struct Plan {
  PlanOptions options;
  PlannedModel base;
  std::vector<PlannedModel> experts;
  std::vector<PlannedTensor> tensors;  ///< in the base's file order
  std::vector<DroppedTensor> dropped;
  std::vector<PlannedStatistics> statistics;  ///< one for each expert
  /// Every how many blocks experts of kProbe are probed; 0 if there are none.
  uint64_t probe_stride = 0;

  // Expert bytes of the whole command, planned. Their sum is within the budget.
  uint64_t fingerprint_bytes = 0;
  uint64_t probe_bytes = 0;  ///< also where the catalog has them: the plan is the same
  uint64_t compare_bytes = 0;
  uint64_t merge_bytes = 0;

  // The selection problem and how well it was solved: scores taken, and the fractional-knapsack
  // upper bound.
  double objective = 0;
  double objective_bound = 0;
  double cutoff_score_per_byte = 0;  ///< of the best pair that did not fit; 0 if all did
  /// None if the strategy is no sum with fixed coefficients, or the deltas are not known exactly.
  std::optional<ErrorBound> bound;

  uint64_t PlannedBytes() const {
    return fingerprint_bytes + probe_bytes + compare_bytes + merge_bytes;
  }
  /// Expert bytes that could be merged: one pass over every expert's version of the kMerge tensors.
  uint64_t CandidateBytes() const;
  /// Blocks of all kMerge tensors, and how many of them are touched.
  uint64_t MergeBlocks() const;
  uint64_t TouchedBlocks() const;

  bool operator==(const Plan&) const = default;
};

}  // namespace mergepipe
