#pragma once

#include <vector>

#include "mergepipe/strategy/strategy.h"
#include "strategy/magnitude_sample.h"

namespace mergepipe {

/// For each expert, the number of observed elements and the magnitudes of a sample of them, in
/// block order. If that becomes longer than kLargestSample (as it may where only blocks that lie on
/// runs of the plan are selected), all of it is dropped: a sample is never needed.
///
/// Serialized, all numbers as LEB128: a tag (3), experts; then for each expert the observed
/// elements, the length of the sample or kLargestSample + 1 if it was dropped, and the magnitudes,
/// four little-endian bytes each. Nothing follows.
class SampleStatistics final : public TensorStatistics {
 public:
  static constexpr uint64_t kLargestSample = uint64_t{1} << 16;

  explicit SampleStatistics(size_t experts) : experts_(experts) {}

  /// kInternal unless `bytes` are what Serialize gives for experts with at most limits[k] elements.
  static Result<std::unique_ptr<TensorStatistics>> Parse(std::span<const uint64_t> limits,
                                                         std::string_view bytes);

  void Append(const TensorStatistics& next) override;
  std::string Serialize() const override;

  /// Adds the elements of a block's slot.
  void Observe(const SamplePlan& plan, const BlockDeltas& block, size_t slot);
  uint64_t Seen(ExpertIndex expert) const { return experts_[expert.value].seen; }
  /// Empty if it was dropped.
  std::span<const uint32_t> Sample(ExpertIndex expert) const {
    return experts_[expert.value].sample;
  }

 private:
  struct Expert {
    uint64_t seen = 0;
    bool dropped = false;
    std::vector<uint32_t> sample;

    void DropIfLong();
  };
  static bool Take(uint64_t limit, std::string_view& bytes, Expert& expert);

  std::vector<Expert> experts_;
};

}  // namespace mergepipe
