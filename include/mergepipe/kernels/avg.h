#pragma once

#include <span>

/// \file
/// Sums with fixed coefficients, in float32 without contraction. Spans of one call have equal
/// lengths.
namespace mergepipe {

/// sum[i] += coefficient * delta[i]: the product is rounded, then the sum.
void AddScaled(float coefficient, std::span<const float> delta, std::span<float> sum);

/// values[i] = factor * values[i].
void Scale(float factor, std::span<float> values);

}  // namespace mergepipe
