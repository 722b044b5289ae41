#pragma once

#include <memory>
#include <vector>

#include "mergepipe/strategy/strategy.h"

namespace mergepipe {

/// Finds, for each expert of a tensor, its threshold: the rank-th largest |D_k| over its selected
/// blocks, as float32 bits. Exact, for any values. It is 0 where the rank is beyond what was
/// observed: the rest are blocks known equal to the base. Functions as in TensorMerge.
class ThresholdSearch {
 public:
  virtual ~ThresholdSearch() = default;
  virtual bool WantsRound() const = 0;
  virtual std::unique_ptr<TensorStatistics> NewStatistics() const = 0;
  virtual Result<std::unique_ptr<TensorStatistics>> ParseStatistics(
      std::string_view bytes) const = 0;
  virtual void Observe(const BlockDeltas& block, TensorStatistics& statistics) const = 0;
  virtual Status Finish(const TensorStatistics& statistics) = 0;

  /// After the last round.
  virtual float Threshold(ExpertIndex expert) const = 0;
};

/// What is searched: with selected[k] = 0 there is nothing to find for expert k.
struct RankedTensor {
  std::string name;
  std::vector<uint64_t> selected;  ///< as TensorContext::selected_elements
  std::vector<uint64_t> ranks;     ///< from 1
};

/// A histogram of the upper 16 bits of each magnitude, then one of the lower 15 bits of those that
/// share the upper ones with the threshold: two rounds, whatever the data.
inline constexpr int kHistogramRounds = 2;
std::unique_ptr<ThresholdSearch> SearchByHistogram(RankedTensor tensor);

/// A sample, and then one pass over everything that counts around a bracket guessed from it. More
/// passes where the guess was wrong or a bin of the bracket holds several values. After Floyd and
/// Rivest, "Expected time bounds for selection", CACM 18(3), 1975.
std::unique_ptr<ThresholdSearch> SearchBySample(RankedTensor tensor);

/// The most that statistics of either take for one expert.
inline constexpr uint64_t kThresholdStatisticsBytes = (uint64_t{1} << 16) * sizeof(uint64_t);

}  // namespace mergepipe
