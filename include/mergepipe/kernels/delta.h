#pragma once

#include <cstddef>
#include <span>

#include "mergepipe/base/dtype.h"

namespace mergepipe {

/// Stored elements with their type.
struct StoredElements {
  DType dtype;
  std::span<const std::byte> bytes;
};

/// delta[i] = expert[i] - base[i] in float32, each converted as by ToFloat. All three of one
/// length; conditions on the spans as in convert.h.
void ComputeDelta(const StoredElements& expert, const StoredElements& base, std::span<float> delta);

}  // namespace mergepipe
