#include "strategy/bracket_statistics.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>

#include "strategy/number_codec.h"

namespace mergepipe {
namespace {

constexpr uint64_t kTag = 2;
// Elements that are looked at together for all experts: the base's stay in the first-level cache.
constexpr uint64_t kStrip = 4096;

constexpr int kBinBits = 12;
static_assert(BracketStatistics::kBins == 1 << kBinBits);

// How a bracket's inside is cut into bins.
struct Bins {
  explicit Bins(const MagnitudeBracket& bracket) : first(bracket.low + 1), last(bracket.high - 1) {
    if (first <= last && bracket.low < bracket.high) {
      const uint32_t widest = last - first;
      shift =
          static_cast<uint32_t>(std::max(0, static_cast<int>(std::bit_width(widest)) - kBinBits));
      used = (widest >> shift) + 1;
    }
  }
  size_t BinOf(uint32_t magnitude) const { return (magnitude - first) >> shift; }
  uint32_t SmallestIn(size_t bin) const { return first + static_cast<uint32_t>(bin << shift); }
  uint32_t LargestIn(size_t bin) const {
    return static_cast<uint32_t>(
        std::min<uint64_t>(last, uint64_t{first} + ((uint64_t{bin} + 1) << shift) - 1));
  }

  uint32_t first;
  uint32_t last;
  uint32_t shift = 0;
  size_t used = 0;
};

using Bin = BracketStatistics::Bin;

void AddTo(const Bins& shape, std::span<const uint32_t> magnitudes, std::vector<Bin>& bins) {
  if (magnitudes.empty()) return;
  if (bins.empty()) bins.resize(BracketStatistics::kBins);
  for (const uint32_t magnitude : magnitudes) {
    Bin& bin = bins[shape.BinOf(magnitude)];
    ++bin.count;
    bin.smallest = std::min(bin.smallest, magnitude);
    bin.largest = std::max(bin.largest, magnitude);
  }
}

bool TakeBin(const Bins& shape, size_t index, uint64_t limit, std::string_view& bytes, Bin& bin) {
  const auto count = TakeNumber(bytes);
  const auto above_least = TakeNumber(bytes);
  const auto width = TakeNumber(bytes);
  if (!count || !above_least || !width || *count == 0 || *count > limit) return false;
  const uint64_t room = shape.LargestIn(index) - shape.SmallestIn(index);
  if (*above_least > room || *width > room - *above_least) return false;
  if (*count == 1 && *width != 0) return false;
  bin.count = *count;
  bin.smallest = shape.SmallestIn(index) + static_cast<uint32_t>(*above_least);
  bin.largest = bin.smallest + static_cast<uint32_t>(*width);
  return true;
}

// Bins that count at most `limit`; false if the bytes are not well-formed.
bool TakeBins(const Bins& shape, uint64_t limit, std::string_view& bytes, std::vector<Bin>& bins) {
  const auto used = TakeNumber(bytes);
  if (!used || *used > shape.used) return false;
  if (*used > 0) bins.resize(BracketStatistics::kBins);
  uint64_t end = 0;
  for (uint64_t i = 0; i < *used; ++i) {
    const auto distance = TakeNumber(bytes);
    if (!distance || *distance == 0 || *distance > shape.used - end) return false;
    end += *distance;
    if (!TakeBin(shape, end - 1, limit, bytes, bins[end - 1])) return false;
    limit -= bins[end - 1].count;
  }
  return true;
}

}  // namespace

bool BracketStatistics::Take(const MagnitudeBracket& bracket, uint64_t limit,
                             std::string_view& bytes, Expert& expert) {
  const auto seen = TakeNumber(bytes);
  const auto above = TakeNumber(bytes);
  const auto at_least_high = TakeNumber(bytes);
  const auto at_least_low = TakeNumber(bytes);
  if (!seen || !above || !at_least_high || !at_least_low) return false;
  if (*above > *at_least_high || *at_least_high > *at_least_low || *at_least_low > *seen ||
      *seen > limit) {
    return false;
  }
  expert.seen = *seen;
  expert.counts = {*above, *at_least_high, *at_least_low};
  return TakeBins(Bins(bracket), *at_least_low - *at_least_high, bytes, expert.bins);
}

Result<std::unique_ptr<TensorStatistics>> BracketStatistics::Parse(const Brackets& brackets,
                                                                   std::span<const uint64_t> limits,
                                                                   std::string_view bytes) {
  auto statistics = std::make_unique<BracketStatistics>(brackets);
  bool valid = TakeExactly(kTag, bytes) && TakeExactly(brackets.size(), bytes);
  for (size_t k = 0; valid && k < brackets.size(); ++k) {
    const uint64_t limit = brackets[k] ? limits[k] : 0;
    valid = Take(brackets[k].value_or(MagnitudeBracket()), limit, bytes, statistics->experts_[k]);
  }
  if (!valid || !bytes.empty()) {
    return Fail(ErrorKind::kInternal, "ties", "malformed magnitude counts from another rank");
  }
  return statistics;
}

void BracketStatistics::Append(const TensorStatistics& next) {
  const auto& other = static_cast<const BracketStatistics&>(next);
  assert(other.experts_.size() == experts_.size());
  for (size_t k = 0; k < experts_.size(); ++k) {
    const Expert& from = other.experts_[k];
    Expert& to = experts_[k];
    to.seen += from.seen;
    to.counts += from.counts;
    if (from.bins.empty()) continue;
    if (to.bins.empty()) to.bins.resize(kBins);
    for (size_t bin = 0; bin < kBins; ++bin) {
      to.bins[bin].count += from.bins[bin].count;
      to.bins[bin].smallest = std::min(to.bins[bin].smallest, from.bins[bin].smallest);
      to.bins[bin].largest = std::max(to.bins[bin].largest, from.bins[bin].largest);
    }
  }
}

std::string BracketStatistics::Serialize() const {
  std::string out;
  PutNumber(kTag, out);
  PutNumber(experts_.size(), out);
  for (size_t k = 0; k < experts_.size(); ++k) {
    const Expert& expert = experts_[k];
    const Bins shape(brackets_[k].value_or(MagnitudeBracket()));
    PutNumber(expert.seen, out);
    PutNumber(expert.counts.above, out);
    PutNumber(expert.counts.at_least_high, out);
    PutNumber(expert.counts.at_least_low, out);
    const auto empty = [](const Bin& bin) { return bin.count == 0; };
    PutNumber(expert.bins.size() - static_cast<size_t>(std::ranges::count_if(expert.bins, empty)),
              out);
    size_t end = 0;
    for (size_t i = 0; i < expert.bins.size(); ++i) {
      const Bin& bin = expert.bins[i];
      if (empty(bin)) continue;
      PutNumber(i + 1 - end, out);
      PutNumber(bin.count, out);
      PutNumber(bin.smallest - shape.SmallestIn(i), out);
      PutNumber(bin.largest - bin.smallest, out);
      end = i + 1;
    }
  }
  return out;
}

void BracketStatistics::Observe(const BlockDeltas& block) {
  std::array<uint32_t, kStrip + kSplitSlack> inside;
  for (uint64_t begin = 0; begin < block.size(); begin += kStrip) {
    const uint64_t count = std::min(kStrip, block.size() - begin);
    const StoredElements base = Part(block.base(), begin, count);
    for (size_t slot = 0; slot < block.experts().size(); ++slot) {
      const uint32_t k = block.experts()[slot].value;
      if (!brackets_[k]) continue;
      const size_t found = SplitMagnitudes(Part(block.stored(slot), begin, count), base,
                                           *brackets_[k], experts_[k].counts, inside);
      experts_[k].seen += count;
      AddTo(Bins(*brackets_[k]), std::span(inside).first(found), experts_[k].bins);
    }
  }
}

BracketStatistics::Found BracketStatistics::Find(ExpertIndex index, uint64_t rank) const {
  const Expert& expert = experts_[index.value];
  if (rank <= expert.counts.above) return {Place::kAbove, {}};
  if (rank <= expert.counts.at_least_high) return {Place::kHigh, {}};
  uint64_t left = rank - expert.counts.at_least_high;
  for (size_t i = expert.bins.size(); i-- > 0;) {
    const Bin& bin = expert.bins[i];
    if (left <= bin.count) return {Place::kInside, {bin.smallest, bin.largest}};
    left -= bin.count;
  }
  return {rank <= expert.counts.at_least_low ? Place::kLow : Place::kBelow, {}};
}

}  // namespace mergepipe
