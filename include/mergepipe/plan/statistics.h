#pragma once

#include <cstdint>
#include <vector>

#include "mergepipe/base/dtype.h"
#include "mergepipe/base/error.h"
#include "mergepipe/format/block_statistics.h"
#include "mergepipe/format/model.h"
#include "mergepipe/plan/block_set.h"

/// \file
/// Statistics as an input of the plan, and the geometry of a probe.
///
/// A probe reads kProbeBytes from the middle of a block, in base and experts, instead of the whole.
/// Blocks are numbered over all float tensors of the base in file order; a probe of stride n takes
/// those whose number is a multiple of n.
namespace mergepipe {

enum class StatisticsKind : uint8_t {
  kNone,   ///< nothing is known
  kExact,  ///< of whole blocks, from `analyze`
  kProbe,  ///< of samples
};

/// What the planner may ask about the deltas. The same answers give the same plan.
class StatisticsSource {
 public:
  virtual ~StatisticsSource() = default;

  /// What is known of this expert (all of its float tensors that the base has, or none).
  virtual StatisticsKind KindOf(uint32_t expert) const = 0;
  /// kExact: of every block of the base's tensor `tensor`; kProbe: of its probed blocks, ascending.
  /// Called for tensors in ascending order, and only for those that the expert has and that are
  /// not empty.
  virtual Result<std::vector<BlockStatistics>> OfExpert(uint32_t expert, uint32_t tensor) = 0;
  /// Of every block of the base; empty if it is not known.
  virtual Result<std::vector<BaseBlockStatistics>> OfBase(uint32_t tensor) = 0;
};

inline constexpr uint64_t kProbeBytes = 16384;

/// Consecutive elements of a block.
struct BlockSample {
  uint64_t first = 0;  ///< in the block
  uint64_t count = 0;
  bool operator==(const BlockSample&) const = default;
};

/// Where a block of `block_elements` elements is probed: kProbeBytes of the base's type around its
/// middle, or all of a smaller block.
BlockSample ProbeSample(uint64_t block_elements, DType base_dtype);

/// How blocks are numbered for a probe.
class ProbeNumbering {
 public:
  ProbeNumbering(const ModelLayout& base, uint64_t block_size);

  /// Number of the first block of a tensor (a tensor that is not float has none: that of the next).
  uint64_t FirstNumber(uint32_t tensor) const { return first_[tensor]; }
  /// The tensor that block `number` belongs to.
  uint32_t TensorOf(uint64_t number) const;
  /// Blocks of all float tensors.
  uint64_t Count() const { return first_.back(); }
  /// The blocks of `tensor` that a probe of this stride takes.
  BlockSet Probed(uint32_t tensor, uint64_t stride) const;

 private:
  std::vector<uint64_t> first_;  ///< one for each tensor, and the end
};

}  // namespace mergepipe
