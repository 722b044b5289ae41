#include "strategy/option_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "strategy/coefficients.h"

namespace mergepipe {
namespace {

bool IsFiniteFloat(double value) { return std::isfinite(static_cast<float>(value)); }

}  // namespace

void CheckDensity(const StrategyOptions& options, ProblemList& problems) {
  if (options.density > 0.0 && options.density <= 1.0) return;
  problems.Add("--density", fmt::format("{} is not a share", options.density),
               "give a number above 0 and at most 1");
}

void CheckLambda(const StrategyOptions& options, ProblemList& problems) {
  if (IsFiniteFloat(options.lambda)) return;
  problems.Add("--lambda", fmt::format("{} is not finite in float32", options.lambda),
               "give a finite number");
}

void CheckWeights(const StrategyOptions& options, ProblemList& problems) {
  if (options.weights.empty()) {
    problems.Add("--weights", "there are none", "give one weight for each expert");
  }
  for (const double weight : options.weights) {
    if (IsFiniteFloat(weight)) continue;
    problems.Add("--weights", fmt::format("{} is not finite in float32", weight),
                 "give finite numbers");
  }
}

void CheckCoefficients(const StrategyOptions& options, ProblemList& problems) {
  CheckWeights(options, problems);
  if (!options.normalize || !std::ranges::all_of(options.weights, IsFiniteFloat)) return;
  const double sum = std::accumulate(options.weights.begin(), options.weights.end(), 0.0);
  if (sum == 0.0 && !options.weights.empty()) {
    problems.Add("--weights", "their sum is 0, by which they would be divided",
                 "change them, or add --no-normalize");
  } else if (!std::ranges::all_of(Coefficients(options), IsFiniteFloat)) {
    problems.Add("--weights", fmt::format("their sum, {}, is too close to 0 to divide by", sum),
                 "change them, or add --no-normalize");
  }
}

}  // namespace mergepipe
