#pragma once

#include <cstdint>
#include <span>

#include "mergepipe/kernels/delta.h"

/// \file
/// Drop And REscale (Yu et al., "Language Models are Super Mario", 2023, section 3.2), in float32.
namespace mergepipe {

/// Keeps an element iff its draw is below `limit` (up to 2^32, which keeps all), and divides it by
/// `keep_rate`.
struct DareKeep {
  uint64_t limit;
  float keep_rate;
};

/// sum[i] += coefficient * (delta[i] / keep_rate) where draws[i] < limit; other sums are untouched,
/// even where delta[i] is NaN. Spans of equal length.
void AddRescaled(const DareKeep& keep, std::span<const uint32_t> draws, float coefficient,
                 std::span<const float> delta, std::span<float> sum);
/// The same with delta = expert - base, as by ComputeDelta.
void AddRescaled(const DareKeep& keep, std::span<const uint32_t> draws, float coefficient,
                 const StoredElements& expert, const StoredElements& base, std::span<float> sum);

}  // namespace mergepipe
