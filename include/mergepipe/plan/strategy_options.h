#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mergepipe {

/// Options that decide what a strategy computes; they are part of the plan.
struct StrategyOptions {
  std::string name = "ties";
  double density = 0.6;         ///< kept share of each delta, in (0, 1]
  std::vector<double> weights;  ///< one for each expert
  double lambda = 1.0;          ///< scale of the merged delta
  uint64_t seed = 0;            ///< of random strategies
  bool normalize = true;        ///< divide by the sum of weights
  bool trim_by_block = false;   ///< ties: rank magnitudes within a block, not within the tensor

  bool operator==(const StrategyOptions&) const = default;
};

}  // namespace mergepipe
