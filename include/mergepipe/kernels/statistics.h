#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "mergepipe/kernels/delta.h"

/// \file
/// Sums over a block, in double over a fixed number of virtual lanes: the same bits for every SIMD
/// width. Conditions on the spans as in convert.h.
namespace mergepipe {

/// Lanes over which sums are taken, and numbers in a sketch: element i of a block belongs to lane
/// i % kStatisticsLanes.
inline constexpr size_t kStatisticsLanes = 32;

/// Sums over the deltas of a block, as ComputeDelta gives them. Deltas that are not finite count
/// in `nonzeros` and `nonfinite` and nowhere else.
struct DeltaSums {
  double sum_squares = 0;
  float max_abs = 0;
  uint64_t nonzeros = 0;
  uint64_t nonfinite = 0;
  /// Signed sums: sketch[j] = sum of s_i D_i over the elements i that chunk i / 1024 of the block
  /// maps to j (lane XOR a random number of the chunk), with random signs s_i that depend on i
  /// alone (Philox4x32-10). Charikar, Chen, Farach-Colton, "Finding frequent items in data
  /// streams", ICALP 2002, section 3: the dot product of two sketches is an unbiased estimate of
  /// that of the deltas.
  std::array<double, kStatisticsLanes> sketch{};
};
DeltaSums SumDeltas(const StoredElements& expert, const StoredElements& base);

/// Sum of squares of the finite elements, each converted as by ToFloat.
double SumSquares(const StoredElements& values);

/// The sketch in 8 bits: the largest magnitude becomes 127, the others are rounded to nearest-even
/// in proportion; zeros stay zeros.
std::array<int8_t, kStatisticsLanes> QuantizeSketch(
    const std::array<double, kStatisticsLanes>& sketch);

}  // namespace mergepipe
