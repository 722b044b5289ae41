#pragma once

#include <cstddef>
#include <span>

#include "mergepipe/base/dtype.h"

/// \file
/// Between stored elements and float32. Kernels are free functions on spans: single-threaded,
/// without allocation, with the same bits on every machine. Stored bytes are little-endian and need
/// no alignment; input and output must not overlap. `dtype` is a float type (IsFloat) and byte
/// spans hold a whole number of its elements, as many as the float spans beside them; anything else
/// is a defect of the caller and aborts.
namespace mergepipe {

/// Exact for F32, F16 and BF16, subnormals included; F64 is rounded to nearest-even, beyond float
/// to infinity. A NaN stays some NaN.
void ToFloat(DType dtype, std::span<const std::byte> stored, std::span<float> out);

/// One rounding to nearest-even; what is too large becomes infinity (IEEE 754, 4.3.1). Every NaN is
/// written as the type's canonical one (7fc00000, 7fc0, 7e00, 7ff8000000000000), so that payloads
/// cannot depend on the SIMD width.
void FromFloat(DType dtype, std::span<const float> values, std::span<std::byte> out);

}  // namespace mergepipe
