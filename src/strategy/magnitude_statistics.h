#pragma once

#include <optional>
#include <vector>

#include "mergepipe/kernels/magnitude.h"
#include "mergepipe/strategy/strategy.h"

namespace mergepipe {

/// For each expert, how many of the observed |D_k| fall into each bin of one digit of the
/// magnitude. Counts are integers, so any split of the blocks gives the same. An expert's bins (8
/// bytes each) exist once something was counted.
///
/// Serialized, all numbers as LEB128 of at most 64 bits in their shortest form: a tag (1), bins of
/// an expert, experts; then for each expert the number of its non-zero bins and for each of those,
/// ascending, the distance to the bin before (to -1 for the first) and the count. Nothing follows.
/// The tag changes when the meaning does; ranks of one job share a version, so others are refused.
class MagnitudeStatistics final : public TensorStatistics {
 public:
  MagnitudeStatistics(size_t experts, size_t bins) : bins_(bins), counts_(experts) {}

  /// kInternal unless `bytes` are what Serialize gives for that many experts and bins, with no more
  /// than limits[k] counted in all for expert k.
  static Result<std::unique_ptr<TensorStatistics>> Parse(size_t bins,
                                                         std::span<const uint64_t> limits,
                                                         std::string_view bytes);

  void Append(const TensorStatistics& next) override;
  std::string Serialize() const override;

  void Count(ExpertIndex expert, const MagnitudeDigit& digit, const StoredElements& stored,
             const StoredElements& base);
  /// Empty if nothing was counted.
  std::span<const uint64_t> Bins(ExpertIndex expert) const { return counts_[expert.value]; }
  /// Sum of the bins, or nothing if it overflows.
  std::optional<uint64_t> Total(ExpertIndex expert) const;

 private:
  std::vector<uint64_t>& Allocated(size_t expert);

  size_t bins_;
  std::vector<std::vector<uint64_t>> counts_;
};

}  // namespace mergepipe
