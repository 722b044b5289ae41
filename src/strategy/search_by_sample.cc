#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "strategy/bracket_statistics.h"
#include "strategy/sample_statistics.h"
#include "strategy/threshold_search.h"

namespace mergepipe {
namespace {

// Elements of a sample: more make the bracket, in which values cost more, narrower.
constexpr uint64_t kSample = uint64_t{1} << 14;
static_assert(SampleStatistics::kLargestSample >= 2 * kSample);

struct Search {
  uint32_t threshold = 0;
  uint64_t seen = 0;
  // The threshold is surely in here. Each round narrows it.
  MagnitudeBracket known;
};

class SampleSearch final : public ThresholdSearch {
 public:
  explicit SampleSearch(RankedTensor tensor)
      : tensor_(std::move(tensor)),
        searches_(tensor_.selected.size()),
        brackets_(tensor_.selected.size()) {
    for (size_t k = 0; k < tensor_.selected.size(); ++k) {
      plans_.emplace_back(tensor_.selected[k], kSample);
      if (tensor_.selected[k] > 0) brackets_[k].emplace();
    }
  }

  bool WantsRound() const override {
    return std::ranges::any_of(brackets_, [](const auto& bracket) { return bracket.has_value(); });
  }

  std::unique_ptr<TensorStatistics> NewStatistics() const override {
    if (sampling_) return std::make_unique<SampleStatistics>(brackets_.size());
    return std::make_unique<BracketStatistics>(brackets_);
  }

  Result<std::unique_ptr<TensorStatistics>> ParseStatistics(std::string_view bytes) const override {
    if (sampling_) return SampleStatistics::Parse(tensor_.selected, bytes);
    return BracketStatistics::Parse(brackets_, tensor_.selected, bytes);
  }

  void Observe(const BlockDeltas& block, TensorStatistics& statistics) const override {
    if (!sampling_) return static_cast<BracketStatistics&>(statistics).Observe(block);
    for (size_t slot = 0; slot < block.experts().size(); ++slot) {
      const SamplePlan& plan = plans_[block.experts()[slot].value];
      static_cast<SampleStatistics&>(statistics).Observe(plan, block, slot);
    }
  }

  Status Finish(const TensorStatistics& statistics) override {
    for (uint32_t k = 0; k < brackets_.size(); ++k) {
      if (!brackets_[k]) continue;
      const ExpertIndex expert(k);
      const bool fits =
          sampling_ ? FinishSample(expert, static_cast<const SampleStatistics&>(statistics))
                    : FinishCount(expert, static_cast<const BracketStatistics&>(statistics));
      if (fits) continue;
      return Fail(ErrorKind::kInternal, tensor_.name,
                  fmt::format("ties saw other elements of expert {} than planned", k + 1));
    }
    sampling_ = false;
    return {};
  }

  float Threshold(ExpertIndex expert) const override {
    return std::bit_cast<float>(searches_[expert.value].threshold);
  }

 private:
  void Settle(ExpertIndex expert, uint32_t threshold) {
    searches_[expert.value].threshold = threshold;
    brackets_[expert.value].reset();
  }

  bool FinishSample(ExpertIndex expert, const SampleStatistics& statistics) {
    Search& search = searches_[expert.value];
    const uint64_t rank = tensor_.ranks[expert.value];
    const auto sample = statistics.Sample(expert);
    search.seen = statistics.Seen(expert);
    if (search.seen > tensor_.selected[expert.value]) return false;
    if (rank >= search.seen) {
      // Nothing that was seen is below the threshold; zeros are not kept whatever it is.
      Settle(expert, 0);
    } else if (sample.size() == search.seen) {
      std::vector<uint32_t> all(sample.begin(), sample.end());
      Settle(expert, LargestMagnitude(all, rank));
    } else {
      brackets_[expert.value] = GuessBracket(sample, search.seen, rank);
    }
    return true;
  }

  bool FinishCount(ExpertIndex expert, const BracketStatistics& statistics) {
    using Place = BracketStatistics::Place;
    const uint32_t k = expert.value;
    if (statistics.Seen(expert) != searches_[k].seen) return false;
    const MagnitudeBracket bracket = *brackets_[k];
    const auto found = statistics.Find(expert, tensor_.ranks[k]);
    MagnitudeBracket& known = searches_[k].known;
    switch (found.place) {
      case Place::kHigh: Settle(expert, bracket.high); return true;
      case Place::kLow: Settle(expert, bracket.low); return true;
      case Place::kAbove: known.low = bracket.high + 1; break;
      case Place::kBelow:
        if (bracket.low == 0) {  // left are NaNs
          Settle(expert, 0);
          return true;
        }
        known.high = bracket.low - 1;
        break;
      case Place::kInside:
        known = found.bin;
        if (known.low == known.high) {
          Settle(expert, known.low);
          return true;
        }
        break;
    }
    brackets_[k] = known;
    return known.low <= known.high;
  }

  RankedTensor tensor_;
  bool sampling_ = true;
  std::vector<SamplePlan> plans_;
  std::vector<Search> searches_;
  // Of experts whose threshold is not found yet.
  BracketStatistics::Brackets brackets_;
};

}  // namespace

std::unique_ptr<ThresholdSearch> SearchBySample(RankedTensor tensor) {
  return std::make_unique<SampleSearch>(std::move(tensor));
}

}  // namespace mergepipe
