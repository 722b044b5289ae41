#pragma once

#include <cstddef>
#include <cstdlib>
#include <span>

#include "mergepipe/base/dtype.h"

namespace mergepipe {

// Kernels work on raw pointers; a wrong length must not become a wild write.
inline void Require(bool condition) {
  if (!condition) std::abort();
}

inline void RequireElements(DType dtype, std::span<const std::byte> stored, size_t count) {
  Require(IsFloat(dtype) && stored.size() == count * DTypeSize(dtype));
}

}  // namespace mergepipe
