#include "strategy/coefficients.h"

#include <cmath>
#include <numeric>

namespace mergepipe {

std::vector<float> Coefficients(const StrategyOptions& options) {
  const double sum = options.normalize
                         ? std::accumulate(options.weights.begin(), options.weights.end(), 0.0)
                         : 1.0;
  std::vector<float> coefficients;
  for (const double weight : options.weights) {
    coefficients.push_back(static_cast<float>(weight / sum));
  }
  return coefficients;
}

std::vector<double> LargestCoefficients(const StrategyOptions& options, double factor) {
  std::vector<double> largest;
  for (const float coefficient : Coefficients(options))
    largest.push_back(std::abs(options.lambda * static_cast<double>(coefficient)) * factor);
  return largest;
}

}  // namespace mergepipe
