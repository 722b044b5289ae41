#include "strategy/coefficients.h"

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

}  // namespace mergepipe
