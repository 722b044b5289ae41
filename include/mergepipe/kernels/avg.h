#pragma once

#include <span>

#include "mergepipe/kernels/delta.h"

/// \file
/// Sums with fixed coefficients, in float32 without contraction. Spans of one call have equal
/// lengths.
namespace mergepipe {

/// sum[i] += coefficient * delta[i]: the product is rounded, then the sum.
void AddScaled(float coefficient, std::span<const float> delta, std::span<float> sum);

/// values[i] = factor * values[i].
void Scale(float factor, std::span<float> values);

struct AvgInput {
  StoredElements stored;
  float coefficient;
};

/// merged = lambda * sum of coefficient * (expert - base), as by ComputeDelta, AddScaled in the
/// order of `inputs` from sums of 0, and Scale; in one pass.
void MergeAvg(const StoredElements& base, std::span<const AvgInput> inputs, float lambda,
              std::span<float> merged);

}  // namespace mergepipe
