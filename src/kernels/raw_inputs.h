#pragma once

#include <cstddef>
#include <cstdint>

namespace mergepipe {

// What the loops that are compiled for each SIMD target get: raw pointers, as nothing of the
// standard library may be instantiated there.

struct RawAvgInput {
  const std::byte* stored;
  float coefficient;
};

/// What of an expert is kept, and with which factors.
struct DareShare {
  uint32_t last_kept;
  float keep_rate;
  float coefficient;
};

struct RawTiesInput {
  const std::byte* stored;
  float threshold;  ///< above 0
  float weight;
};

}  // namespace mergepipe
