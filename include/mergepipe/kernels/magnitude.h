#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "mergepipe/kernels/delta.h"

/// \file
/// What exact selection by magnitude needs of the deltas of an expert, straight from stored
/// elements. Magnitudes are 31-bit patterns of float32, whose order as integers is that of the
/// absolute values; infinity is the largest. A NaN has magnitude 0. Counts of different parts of
/// the data add up. Conditions on the spans as in convert.h.
namespace mergepipe {

inline constexpr uint32_t kLargestMagnitude = 0x7f800000;

/// Writes the magnitude of each delta; `magnitudes` has as many elements.
void DeltaMagnitudes(const StoredElements& expert, const StoredElements& base,
                     std::span<uint32_t> magnitudes);

/// Magnitudes low <= high.
struct MagnitudeBracket {
  uint32_t low = 0;
  uint32_t high = kLargestMagnitude;

  bool operator==(const MagnitudeBracket&) const = default;
};

/// How many magnitudes lie where around a bracket.
struct BracketCounts {
  uint64_t above = 0;          ///< > high
  uint64_t at_least_high = 0;  ///< >= high
  uint64_t at_least_low = 0;   ///< >= low; without NaN, though its magnitude is 0

  bool operator==(const BracketCounts&) const = default;
  BracketCounts& operator+=(const BracketCounts& other) {
    above += other.above;
    at_least_high += other.at_least_high;
    at_least_low += other.at_least_low;
    return *this;
  }
};

/// What SplitMagnitudes may write beyond the last magnitude.
inline constexpr size_t kSplitSlack = 16;

/// Adds to `counts`, and writes the magnitudes strictly between low and high to the start of
/// `between`, in order; how many there are. `between` has at least kSplitSlack elements more than
/// the deltas.
size_t SplitMagnitudes(const StoredElements& expert, const StoredElements& base,
                       const MagnitudeBracket& bracket, BracketCounts& counts,
                       std::span<uint32_t> between);

/// Some bits of a magnitude, counted among those whose bits above them are `prefix`.
struct MagnitudeDigit {
  uint32_t shift;   ///< bits below the digit
  uint32_t width;   ///< bits of the digit; shift + width <= 31
  uint32_t prefix;  ///< what magnitude >> (shift + width) must be; 0 for the highest digit

  constexpr size_t bins() const { return size_t{1} << width; }
};

/// bins[digit of |D|]++ for each delta that has the prefix; bins.size() is digit.bins().
void CountMagnitudes(const MagnitudeDigit& digit, const StoredElements& expert,
                     const StoredElements& base, std::span<uint64_t> bins);

/// Where the value of some rank lies: in which bin, and its rank among the values of this bin.
struct BinRank {
  uint32_t bin;
  uint64_t rank;

  bool operator==(const BinRank&) const = default;
};

/// The bin that holds the `rank`-th largest value (from 1), or nothing if the bins hold fewer.
std::optional<BinRank> FindRank(std::span<const uint64_t> bins, uint64_t rank);

}  // namespace mergepipe
