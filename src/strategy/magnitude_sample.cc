#include "strategy/magnitude_sample.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>

#include "mergepipe/base/units.h"

namespace mergepipe {
namespace {

// A cache line of 16-bit elements.
constexpr uint64_t kRun = 32;
constexpr uint64_t kFetchedAhead = 8;
constexpr uint64_t kBlockSample = 4096;
constexpr double kDeviations = 6;

// The output function of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
// generators", OOPSLA 2014).
uint64_t Mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

void Append(const BlockDeltas& block, size_t slot, uint64_t begin, uint64_t end,
            std::vector<uint32_t>& sample) {
  const size_t old = sample.size();
  const uint64_t count = end - begin;
  sample.resize(old + count);
  DeltaMagnitudes(Part(block.stored(slot), begin, count), Part(block.base(), begin, count),
                  std::span(sample).subspan(old));
}

// Runs lie too far apart for the processor to see them coming.
void Fetch(const BlockDeltas& block, size_t slot, uint64_t element) {
  for (const StoredElements& stored : {block.stored(slot), block.base()}) {
    __builtin_prefetch(stored.bytes.data() + element * DTypeSize(stored.dtype));
  }
}

}  // namespace

SamplePlan::SamplePlan(uint64_t elements, uint64_t wanted) {
  if (elements > 2 * wanted) stride_ = elements / (wanted / kRun);
}

void SamplePlan::Take(const BlockDeltas& block, size_t slot, uint64_t origin,
                      std::vector<uint32_t>& sample) const {
  if (complete()) return Append(block, slot, 0, block.size(), sample);
  const uint64_t first = block.first_element() - origin;
  const uint64_t last = first + block.size();
  const auto run_of = [&](uint64_t cell) {
    return cell * stride_ + Mix(cell) % (stride_ - kRun + 1);
  };
  for (uint64_t cell = first / stride_; cell * stride_ < last; ++cell) {
    const uint64_t ahead = run_of(cell + kFetchedAhead);
    if (ahead < last) Fetch(block, slot, ahead - first);
    const uint64_t begin = std::max(run_of(cell), first);
    const uint64_t end = std::min(run_of(cell) + kRun, last);
    if (begin < end) Append(block, slot, begin - first, end - first, sample);
  }
}

uint32_t LargestMagnitude(std::span<uint32_t> magnitudes, uint64_t rank) {
  constexpr int kBinBits = 11;
  if (rank == 0 || rank > magnitudes.size()) return 0;
  uint32_t smallest = kLargestMagnitude;
  uint32_t largest = 0;
  for (const uint32_t magnitude : magnitudes) {
    smallest = std::min(smallest, magnitude);
    largest = std::max(largest, magnitude);
  }
  const int shift = std::max(0, static_cast<int>(std::bit_width(largest - smallest)) - kBinBits);
  const auto bin_of = [&](uint32_t magnitude) { return (magnitude - smallest) >> shift; };
  std::array<uint64_t, 1 << kBinBits> bins{};
  for (const uint32_t magnitude : magnitudes) ++bins[bin_of(magnitude)];
  const auto position = FindRank(bins, rank);
  if (!position) return 0;
  size_t found = 0;
  for (const uint32_t magnitude : magnitudes) {
    magnitudes[found] = magnitude;
    found += bin_of(magnitude) == position->bin ? 1 : 0;
  }
  const auto candidates = magnitudes.first(found);
  const auto wanted = candidates.begin() + static_cast<std::ptrdiff_t>(position->rank - 1);
  std::ranges::nth_element(candidates, wanted, std::greater<>());
  return *wanted;
}

MagnitudeBracket GuessBracket(std::span<const uint32_t> sample, uint64_t seen, uint64_t rank) {
  MagnitudeBracket bracket;
  if (sample.empty() || seen == 0) return bracket;
  const auto count = static_cast<double>(sample.size());
  const double share = static_cast<double>(std::min(rank, seen)) / static_cast<double>(seen);
  const double margin = kDeviations * std::sqrt(count * share * (1 - share)) + 1;
  const double first = std::floor(count * share - margin);
  const double last = std::ceil(count * share + margin);
  static thread_local std::vector<uint32_t> copy;
  const auto ranked = [&](double rank_in_sample) {
    copy.assign(sample.begin(), sample.end());
    return LargestMagnitude(copy, static_cast<uint64_t>(rank_in_sample));
  };
  if (first >= 1) bracket.high = ranked(first);
  if (last <= count) bracket.low = ranked(last);
  return bracket;
}

uint32_t BlockMagnitude(const BlockDeltas& block, size_t slot, uint64_t rank) {
  static thread_local std::vector<uint32_t> magnitudes;
  if (rank > block.size()) return 0;
  const SamplePlan plan(block.size(), kBlockSample);
  magnitudes.clear();
  plan.Take(block, slot, block.first_element(), magnitudes);
  if (plan.complete()) return LargestMagnitude(magnitudes, rank);
  const MagnitudeBracket bracket = GuessBracket(magnitudes, block.size(), rank);
  BracketCounts counts;
  magnitudes.resize(block.size() + kSplitSlack);
  const size_t found =
      SplitMagnitudes(block.stored(slot), block.base(), bracket, counts, magnitudes);
  if (rank > counts.above) {
    if (rank <= counts.at_least_high) return bracket.high;
    const uint64_t inside = rank - counts.at_least_high;
    if (inside <= found) {
      return LargestMagnitude(std::span(magnitudes).first(found), inside);
    }
    if (rank <= counts.at_least_low || bracket.low == 0) return bracket.low;
  }
  magnitudes.resize(block.size());
  DeltaMagnitudes(block.stored(slot), block.base(), magnitudes);
  return LargestMagnitude(magnitudes, rank);
}

}  // namespace mergepipe
