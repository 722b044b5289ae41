#pragma once

#include <cstdint>
#include <vector>

#include "mergepipe/plan/plan.h"

namespace mergepipe {

/// The candidate (tensor, block, expert) triples of a plan and their scores, in that order: the
/// index of a pair is its place in the order by (tensor in file order, block, expert), which is
/// also how ties are broken. Flat arrays: a 405B model with 20 experts has 13 million pairs.
class PairTable {
 public:
  struct Pair {
    uint32_t tensor;
    BlockIndex block;
    uint32_t expert;
  };

  explicit PairTable(const Plan& plan);

  uint64_t size() const { return scores.size(); }
  Pair At(uint64_t index) const;
  /// Index of the first pair of a tensor; pairs of block b begin at TensorBegin + b * experts().
  uint64_t TensorBegin(uint32_t tensor) const { return tensor_begin_[tensor]; }
  uint64_t TensorEnd(uint32_t tensor) const { return tensor_begin_[tensor + 1]; }
  uint32_t experts() const { return experts_; }

  /// Scores, >= 0; kNotACandidate for a pair that must not be taken (no such tensor in the expert,
  /// or equal to the base).
  static constexpr double kNotACandidate = -1;
  std::vector<double> scores;

  /// Squared norms of the deltas, of candidates and equal blocks; kUnknown where there are no
  /// statistics, and for what an expert lacks.
  static constexpr double kUnknown = -1;
  std::vector<double> energies;
  /// Norms of the base's blocks (block i is that of pair i * experts()); empty if not known.
  std::vector<double> base_norms;
  /// Whether every energy is exact and every delta finite.
  bool exact = false;

 private:
  uint32_t experts_;
  std::vector<uint64_t> tensor_begin_;
};

}  // namespace mergepipe
