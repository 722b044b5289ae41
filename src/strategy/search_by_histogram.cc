#include <fmt/format.h>

#include <bit>

#include "strategy/magnitude_statistics.h"
#include "strategy/threshold_search.h"

namespace mergepipe {
namespace {

// Where an expert's threshold lies, as far as the finished rounds tell.
struct Digits {
  bool is_zero = false;  // and needs no more rounds
  uint32_t bits = 0;     // the digits found so far
  uint64_t rank = 0;     // among the values with these digits
  uint64_t values = 0;   // how many there are
};

class HistogramSearch final : public ThresholdSearch {
 public:
  explicit HistogramSearch(RankedTensor tensor)
      : tensor_(std::move(tensor)), found_(tensor_.selected.size()) {
    for (size_t k = 0; k < found_.size(); ++k) {
      found_[k].rank = tensor_.ranks[k];
      found_[k].is_zero = tensor_.selected[k] == 0;
      if (!found_[k].is_zero) rounds_left_ = kHistogramRounds;
    }
  }

  bool WantsRound() const override { return rounds_left_ > 0; }

  std::unique_ptr<TensorStatistics> NewStatistics() const override {
    return std::make_unique<MagnitudeStatistics>(found_.size(), Digit(0).bins());
  }

  Result<std::unique_ptr<TensorStatistics>> ParseStatistics(std::string_view bytes) const override {
    return MagnitudeStatistics::Parse(Digit(0).bins(), tensor_.selected, bytes);
  }

  void Observe(const BlockDeltas& block, TensorStatistics& statistics) const override {
    auto& magnitudes = static_cast<MagnitudeStatistics&>(statistics);
    for (size_t slot = 0; slot < block.experts().size(); ++slot) {
      const ExpertIndex expert = block.experts()[slot];
      const Digits& found = found_[expert.value];
      if (found.is_zero) continue;
      magnitudes.Count(expert, Digit(found.bits), block.stored(slot), block.base());
    }
  }

  Status Finish(const TensorStatistics& statistics) override {
    const auto& magnitudes = static_cast<const MagnitudeStatistics&>(statistics);
    for (uint32_t k = 0; k < found_.size(); ++k) {
      MERGEPIPE_RETURN_IF_ERROR(FinishExpert(ExpertIndex(k), magnitudes));
    }
    --rounds_left_;
    return {};
  }

  float Threshold(ExpertIndex expert) const override {
    return std::bit_cast<float>(found_[expert.value].bits);
  }

 private:
  bool first() const { return rounds_left_ == kHistogramRounds; }
  MagnitudeDigit Digit(uint32_t prefix) const {
    return first() ? MagnitudeDigit{15, 16, 0} : MagnitudeDigit{0, 15, prefix};
  }

  Status FinishExpert(ExpertIndex expert, const MagnitudeStatistics& magnitudes) {
    Digits& found = found_[expert.value];
    if (found.is_zero) return {};
    const auto total = magnitudes.Total(expert);
    const bool fits =
        total && (first() ? *total <= tensor_.selected[expert.value] : *total == found.values);
    if (!fits) {
      return Fail(
          ErrorKind::kInternal, tensor_.name,
          fmt::format("ties saw other elements of expert {} than planned", expert.value + 1));
    }
    const auto bins = magnitudes.Bins(expert);
    const auto position = FindRank(bins, found.rank);
    if (!position) {
      found = {.is_zero = true};
      return {};
    }
    found.bits = (found.bits << Digit(0).width) | position->bin;
    found.rank = position->rank;
    found.values = bins[position->bin];
    return {};
  }

  RankedTensor tensor_;
  std::vector<Digits> found_;
  int rounds_left_ = 0;
};

}  // namespace

std::unique_ptr<ThresholdSearch> SearchByHistogram(RankedTensor tensor) {
  return std::make_unique<HistogramSearch>(std::move(tensor));
}

}  // namespace mergepipe
