#include "strategy/magnitude_statistics.h"

#include <algorithm>
#include <cassert>

#include "mergepipe/base/checked.h"
#include "strategy/number_codec.h"

namespace mergepipe {
namespace {

constexpr uint64_t kTag = 1;

// One expert's bins; false if the bytes are not well-formed or count more than `limit`.
bool TakeBins(size_t bins, uint64_t limit, std::string_view& bytes, std::vector<uint64_t>& counts) {
  const auto used = TakeNumber(bytes);
  if (!used || *used > bins) return false;
  if (*used > 0) counts.resize(bins);
  uint64_t end = 0;
  for (uint64_t i = 0; i < *used; ++i) {
    const auto distance = TakeNumber(bytes);
    if (!distance || *distance == 0 || *distance > bins - end) return false;
    end += *distance;
    const auto count = TakeNumber(bytes);
    if (!count || *count == 0 || *count > limit) return false;
    limit -= *count;
    counts[end - 1] = *count;
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<TensorStatistics>> MagnitudeStatistics::Parse(
    size_t bins, std::span<const uint64_t> limits, std::string_view bytes) {
  auto statistics = std::make_unique<MagnitudeStatistics>(limits.size(), bins);
  bool valid =
      TakeExactly(kTag, bytes) && TakeExactly(bins, bytes) && TakeExactly(limits.size(), bytes);
  for (size_t expert = 0; valid && expert < limits.size(); ++expert) {
    valid = TakeBins(bins, limits[expert], bytes, statistics->counts_[expert]);
  }
  if (!valid || !bytes.empty()) {
    return Fail(ErrorKind::kInternal, "ties", "malformed magnitude statistics from another rank");
  }
  return statistics;
}

void MagnitudeStatistics::Append(const TensorStatistics& next) {
  const auto& other = static_cast<const MagnitudeStatistics&>(next);
  assert(other.bins_ == bins_ && other.counts_.size() == counts_.size());
  for (size_t expert = 0; expert < counts_.size(); ++expert) {
    const auto& from = other.counts_[expert];
    if (from.empty()) continue;
    auto& to = Allocated(expert);
    std::ranges::transform(from, to, to.begin(), std::plus<>());
  }
}

std::string MagnitudeStatistics::Serialize() const {
  std::string out;
  PutNumber(kTag, out);
  PutNumber(bins_, out);
  PutNumber(counts_.size(), out);
  for (const auto& counts : counts_) {
    PutNumber(counts.size() - static_cast<size_t>(std::ranges::count(counts, uint64_t{0})), out);
    size_t end = 0;
    for (size_t bin = 0; bin < counts.size(); ++bin) {
      if (counts[bin] == 0) continue;
      PutNumber(bin + 1 - end, out);
      PutNumber(counts[bin], out);
      end = bin + 1;
    }
  }
  return out;
}

void MagnitudeStatistics::Count(ExpertIndex expert, const MagnitudeDigit& digit,
                                const StoredElements& stored, const StoredElements& base) {
  CountMagnitudes(digit, stored, base, Allocated(expert.value));
}

std::optional<uint64_t> MagnitudeStatistics::Total(ExpertIndex expert) const {
  std::optional<uint64_t> total = 0;
  for (const uint64_t count : Bins(expert)) {
    if (total) total = CheckedAdd(*total, count);
  }
  return total;
}

std::vector<uint64_t>& MagnitudeStatistics::Allocated(size_t expert) {
  if (counts_[expert].empty()) counts_[expert].resize(bins_);
  return counts_[expert];
}

}  // namespace mergepipe
