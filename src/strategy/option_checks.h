#pragma once

#include "mergepipe/base/error.h"
#include "mergepipe/plan/strategy_options.h"

/// \file
/// What several strategies ask of their options. Each check adds its problems, with the option as
/// subject.
namespace mergepipe {

/// In (0, 1].
void CheckDensity(const StrategyOptions& options, ProblemList& problems);
/// Finite, also as a float.
void CheckLambda(const StrategyOptions& options, ProblemList& problems);
/// At least one; each finite, also as a float.
void CheckWeights(const StrategyOptions& options, ProblemList& problems);
/// CheckWeights; and with normalize, that dividing by the sum gives finite coefficients.
void CheckCoefficients(const StrategyOptions& options, ProblemList& problems);

}  // namespace mergepipe
