#pragma once

#include <cstddef>
#include <cstdint>

#include "mergepipe/kernels/statistics.h"

namespace mergepipe {

/// Elements that share one random permutation of the lanes, and that are worked on at a time.
inline constexpr size_t kStatisticsChunk = 1024;

/// What the loops of statistics.cc add up. Plain arrays: nothing of the standard library may be
/// instantiated in code that is compiled for one SIMD target.
struct LaneSums {
  double squares[kStatisticsLanes] = {};
  double sketch[kStatisticsLanes] = {};
  uint64_t nonzeros = 0;
  uint64_t nonfinite = 0;
  uint32_t max_magnitude = 0;  ///< of the finite values, as bits
};

/// The random numbers of some consecutive chunks, the first element's being the first.
struct SketchDraws {
  const uint32_t* signs;  ///< bit l of word g: whether element 32 g + l is negated
  const uint32_t* masks;  ///< one for each chunk: lane l goes to l XOR the lowest five bits
};

}  // namespace mergepipe
