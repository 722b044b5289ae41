#pragma once

#include <vector>

#include "mergepipe/kernels/magnitude.h"
#include "mergepipe/strategy/strategy.h"

namespace mergepipe {

/// For each expert, how the observed magnitudes lie around its bracket, and a histogram of those
/// strictly inside: bins of equal width, each with the smallest and the largest magnitude in it. An
/// expert's bins (kBins of 16 bytes) exist once something was counted.
///
/// Serialized, all numbers as LEB128: a tag (2), experts; then for each expert the observed
/// elements, the three counts of BracketCounts, the number of its non-empty bins and for each of
/// those, ascending, the distance to the bin before (to -1 for the first), the count, the smallest
/// magnitude less the least that belongs into the bin, and the largest less the smallest. Nothing
/// follows.
class BracketStatistics final : public TensorStatistics {
 public:
  static constexpr uint64_t kBins = 4096;

  struct Bin {
    uint64_t count = 0;
    uint32_t smallest = kLargestMagnitude;
    uint32_t largest = 0;
  };

  /// Where a rank lies.
  enum class Place { kAbove, kHigh, kInside, kLow, kBelow };
  struct Found {
    Place place;
    MagnitudeBracket bin;  ///< kInside: the smallest and the largest magnitude of its bin
  };

  /// One for each expert, nothing for those that are not counted.
  using Brackets = std::vector<std::optional<MagnitudeBracket>>;

  explicit BracketStatistics(Brackets brackets)
      : brackets_(std::move(brackets)), experts_(brackets_.size()) {}

  /// kInternal unless `bytes` are what Serialize gives for these brackets and experts of at most
  /// limits[k] elements.
  static Result<std::unique_ptr<TensorStatistics>> Parse(const Brackets& brackets,
                                                         std::span<const uint64_t> limits,
                                                         std::string_view bytes);

  void Append(const TensorStatistics& next) override;
  std::string Serialize() const override;

  /// Adds a block's elements of all experts that are counted.
  void Observe(const BlockDeltas& block);
  uint64_t Seen(ExpertIndex expert) const { return experts_[expert.value].seen; }
  /// Where the `rank`-th largest magnitude of an expert that is counted lies.
  Found Find(ExpertIndex index, uint64_t rank) const;

 private:
  struct Expert {
    uint64_t seen = 0;
    BracketCounts counts;
    std::vector<Bin> bins;
  };
  static bool Take(const MagnitudeBracket& bracket, uint64_t limit, std::string_view& bytes,
                   Expert& expert);

  Brackets brackets_;
  std::vector<Expert> experts_;
};

}  // namespace mergepipe
