#pragma once

#include <span>

#include "mergepipe/kernels/delta.h"

/// \file
/// TrIm, Elect Sign & Merge (Yadav et al., "TIES-Merging", NeurIPS 2023, section 4), in float32, in
/// one pass over the experts: both signs are summed, and the elected one is taken at the end.
namespace mergepipe {

/// Sums over the experts so far, element by element, all of one length; zero them before the first
/// expert.
struct TiesSums {
  std::span<float> all;              ///< of w * D over kept elements: its sign is elected
  std::span<float> positive;         ///< of w * D where that is > 0
  std::span<float> negative;         ///< of w * D where that is < 0
  std::span<float> positive_weight;  ///< of w where w * D > 0
  std::span<float> negative_weight;  ///< of w where w * D < 0
};

/// Adds one expert. An element is kept iff |delta| >= threshold and delta is not 0; NaN never is.
void AddTrimmed(float threshold, float weight, std::span<const float> delta, const TiesSums& sums);

/// merged = lambda * (sum of the elected sign / its weights), 0 where these weights sum to 0.
/// Positive is elected iff all >= 0, so a NaN there (infinities of both signs) elects negative.
void ElectMean(const TiesSums& sums, float lambda, std::span<float> merged);

/// merged = lambda * sum of the elected sign.
void ElectSum(const TiesSums& sums, float lambda, std::span<float> merged);

struct TiesInput {
  StoredElements stored;
  float threshold;
  float weight;
};

enum class TiesElection { kMean, kSum };

/// merged = what ComputeDelta, AddTrimmed in the order of `inputs` from sums of 0, and ElectMean or
/// ElectSum give; in one pass.
void MergeTies(const StoredElements& base, std::span<const TiesInput> inputs, TiesElection election,
               float lambda, std::span<float> merged);

}  // namespace mergepipe
