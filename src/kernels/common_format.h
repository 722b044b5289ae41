#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "kernels/checks.h"
#include "mergepipe/kernels/delta.h"

namespace mergepipe {

/// Experts that the fused loops take at most: their pointers lie on the stack.
inline constexpr size_t kFusedExperts = 64;
/// Elements that the fused loops take at a time (kVectorStep); the others go by delta tiles.
inline constexpr size_t kFusedStep = 16;
/// Elements of a delta tile.
inline constexpr size_t kDeltaTile = 1024;

inline bool HasVectorFormat(DType dtype) {
  return dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF32;
}

/// For loops over one expert.
struct FusedInput {
  StoredElements stored;
};

/// How many of `count` elements the fused loops can take: none unless base and experts are of one
/// type that they know. `inputs` have a member `stored`. Checks all lengths.
template <class Input>
size_t FusedCount(const StoredElements& base, std::span<const Input> inputs, size_t count) {
  RequireElements(base.dtype, base.bytes, count);
  bool same = HasVectorFormat(base.dtype) && inputs.size() <= kFusedExperts;
  for (const Input& input : inputs) {
    RequireElements(input.stored.dtype, input.stored.bytes, count);
    same = same && input.stored.dtype == base.dtype;
  }
  return same ? count / kFusedStep * kFusedStep : 0;
}

/// body(begin, length) for tiles of `Size` elements of [begin, end).
template <size_t Size, class Body>
void ForEachTileOf(size_t begin, size_t end, Body body) {
  for (; begin < end; begin += Size) body(begin, std::min(Size, end - begin));
}

template <class Body>
void ForEachDeltaTile(size_t begin, size_t end, Body body) {
  ForEachTileOf<kDeltaTile>(begin, end, body);
}

}  // namespace mergepipe
