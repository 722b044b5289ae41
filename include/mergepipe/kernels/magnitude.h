#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

/// \file
/// Exact selection by magnitude, as a radix selection over the 31 magnitude bits of float32, whose
/// order as integers is that of the absolute values. A NaN has magnitude 0. Counts of different
/// parts of the data add up.
namespace mergepipe {

/// Some bits of a magnitude, counted among the values whose bits above them are `prefix`.
struct MagnitudeDigit {
  uint32_t shift;   ///< bits below the digit
  uint32_t width;   ///< bits of the digit; shift + width <= 31
  uint32_t prefix;  ///< what magnitude >> (shift + width) must be; 0 for the highest digit

  constexpr size_t bins() const { return size_t{1} << width; }
};

/// bins[digit of |value|]++ for each value that has the prefix; bins.size() is digit.bins().
void CountMagnitudes(const MagnitudeDigit& digit, std::span<const float> values,
                     std::span<uint64_t> bins);

/// Where the value of some rank lies: in which bin, and its rank among the values of this bin.
struct BinRank {
  uint32_t bin;
  uint64_t rank;

  bool operator==(const BinRank&) const = default;
};

/// The bin that holds the `rank`-th largest value (from 1), or nothing if the bins hold fewer.
std::optional<BinRank> FindRank(std::span<const uint64_t> bins, uint64_t rank);

/// The `rank`-th largest (from 1) of |values|; 0 if there are fewer. 16 KiB of stack.
float LargestMagnitude(std::span<const float> values, uint64_t rank);

}  // namespace mergepipe
