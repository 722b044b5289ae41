#pragma once

#include <vector>

#include "mergepipe/plan/strategy_options.h"

namespace mergepipe {

/// a_k of avg and dare, for each expert: w_k / sum of all w with normalize, else w_k; in double,
/// the sum in expert order, rounded once to float. They do not depend on what is read.
std::vector<float> Coefficients(const StrategyOptions& options);

/// |lambda a_k| * factor, for each expert.
std::vector<double> LargestCoefficients(const StrategyOptions& options, double factor);

}  // namespace mergepipe
