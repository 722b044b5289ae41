#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "mergepipe/base/hash.h"

/// \file
/// What is known of a block without reading it again. Numbers come from fixed virtual lanes, so
/// that they have the same bits on every machine.
namespace mergepipe {

/// Numbers in the sketch of a block's delta.
inline constexpr size_t kSketchSize = 32;

/// Statistics of an expert's delta D = W_k - W0 (float32) in one block, or in a sample of it.
struct BlockStatistics {
  double sum_squares = 0;  ///< of the finite elements of D
  float max_abs = 0;       ///< of the finite elements; infinity if some are not finite
  uint32_t nonzeros = 0;   ///< elements of D that are not 0, NaN included; 0: as the base
  /// Random projections of D with signs that all blocks share, scaled so that the largest is
  /// +-127; all 0 if D is. The cosine of two of them estimates that of the deltas.
  std::array<int8_t, kSketchSize> sketch{};
  Hash128 hash;  ///< of the expert's stored bytes: the block's, or the sample's

  bool operator==(const BlockStatistics&) const = default;
};

static_assert(sizeof(BlockStatistics) == 64);  // no padding: statistics are hashed as bytes

/// Of a block of the base.
struct BaseBlockStatistics {
  double sum_squares = 0;  ///< of the finite elements, as float32
  /// Of the stored bytes; zero, that is unknown, if they are not all finite: such a block is looked
  /// at whenever it is used.
  Hash128 hash;

  bool operator==(const BaseBlockStatistics&) const = default;
};

}  // namespace mergepipe
