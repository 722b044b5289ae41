#pragma once

#include <cstddef>
#include <span>

#include "mergepipe/base/dtype.h"

namespace mergepipe {

/// Stored elements with their type.
struct StoredElements {
  DType dtype = DType::kF32;
  std::span<const std::byte> bytes;
};

/// Elements [begin, begin + count) of `elements`.
inline StoredElements Part(const StoredElements& elements, size_t begin, size_t count) {
  const size_t size = DTypeSize(elements.dtype);
  return {elements.dtype, elements.bytes.subspan(begin * size, count * size)};
}

/// delta[i] = expert[i] - base[i] in float32, each converted as by ToFloat. All three of one
/// length; conditions on the spans as in convert.h.
void ComputeDelta(const StoredElements& expert, const StoredElements& base, std::span<float> delta);

}  // namespace mergepipe
