#include "mergepipe/kernels/magnitude.h"

#include <algorithm>
#include <array>
#include <bit>

#include "kernels/checks.h"

namespace mergepipe {
namespace {

uint32_t Magnitude(float value) {
  const uint32_t magnitude = std::bit_cast<uint32_t>(value) & 0x7fffffff;
  return magnitude > 0x7f800000 ? 0 : magnitude;
}

}  // namespace

void CountMagnitudes(const MagnitudeDigit& digit, std::span<const float> values,
                     std::span<uint64_t> bins) {
  Require(digit.shift + digit.width <= 31 && bins.size() == digit.bins());
  const auto mask = static_cast<uint32_t>(digit.bins() - 1);
  for (const float value : values) {
    const uint32_t high = Magnitude(value) >> digit.shift;
    if (high >> digit.width == digit.prefix) ++bins[high & mask];
  }
}

std::optional<BinRank> FindRank(std::span<const uint64_t> bins, uint64_t rank) {
  for (size_t bin = bins.size(); bin-- > 0;) {
    if (rank <= bins[bin]) return BinRank{static_cast<uint32_t>(bin), rank};
    rank -= bins[bin];
  }
  return std::nullopt;
}

float LargestMagnitude(std::span<const float> values, uint64_t rank) {
  std::array<uint64_t, 2048> storage;
  uint32_t found = 0;
  for (const auto& [shift, width] : {std::array{20u, 11u}, {10u, 10u}, {0u, 10u}}) {
    const MagnitudeDigit digit{shift, width, found};
    const auto bins = std::span(storage).first(digit.bins());
    std::ranges::fill(bins, uint64_t{0});
    CountMagnitudes(digit, values, bins);
    const auto position = FindRank(bins, rank);
    if (!position) return 0.0f;
    found = (found << width) | position->bin;
    rank = position->rank;
  }
  return std::bit_cast<float>(found);
}

}  // namespace mergepipe
