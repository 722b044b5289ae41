#pragma once

#include <cstddef>
#include <span>

#include "mergepipe/base/dtype.h"
#include "mergepipe/kernels/delta.h"
#include "mergepipe/kernels/nonfinite.h"

/// \file
/// Output elements from the base's. Conditions on the spans as in convert.h. Both functions count
/// the non-finite elements that were *made*: NaN or infinity in the output where the base's stored
/// value is finite, whether by the merge or by rounding to the output type (an F64 beyond float's
/// range is finite here).
namespace mergepipe {

/// Element i of `out` is the base's where merged_delta[i] is 0 of either sign (its very bits if
/// `out_dtype` is the base's type, else as ConvertStored gives it), and otherwise base[i] +
/// merged_delta[i] in float32, with base[i] converted as by ToFloat, rounded once as by FromFloat.
NonFinite WriteMerged(const StoredElements& base, std::span<const float> merged_delta,
                      DType out_dtype, std::span<std::byte> out);

/// Elements of one type as another: the very bits between equal types; else rounded once to
/// nearest-even from the stored value (F64 is not rounded to float on the way), NaNs written
/// canonically.
NonFinite ConvertStored(DType dtype, std::span<const std::byte> stored, DType out_dtype,
                        std::span<std::byte> out);

}  // namespace mergepipe
