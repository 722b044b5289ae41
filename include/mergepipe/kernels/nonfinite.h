#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "mergepipe/base/dtype.h"

namespace mergepipe {

/// Numbers of elements that are NaN, and that are an infinity of either sign.
struct NonFinite {
  uint64_t nan = 0;
  uint64_t inf = 0;

  bool operator==(const NonFinite&) const = default;
  NonFinite& operator+=(const NonFinite& other) {
    nan += other.nan;
    inf += other.inf;
    return *this;
  }
};

/// Counts in stored elements of a float type. An F64 that is beyond float's range counts as
/// infinity: that is what the arithmetic, in float32, sees. Conditions on the spans as in
/// convert.h.
NonFinite CountNonFinite(DType dtype, std::span<const std::byte> stored);

}  // namespace mergepipe
