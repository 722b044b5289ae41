#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "mergepipe/strategy/strategy.h"

namespace mergepipe {

/// Elements that are worked on together: a few float arrays of this length fit the first-level
/// cache.
inline constexpr size_t kTile = 1024;

/// For the tiles of `size` elements, in order: merge(begin, merged) fills `merged`, the elements
/// from `begin` on, and `sink` takes them.
template <typename Merge>
void ForEachMergedTile(uint64_t size, TileSink& sink, Merge merge) {
  alignas(64) std::array<float, kTile> storage;
  for (uint64_t begin = 0; begin < size; begin += kTile) {
    const auto merged =
        std::span(storage).first(static_cast<size_t>(std::min<uint64_t>(kTile, size - begin)));
    merge(begin, merged);
    sink.Take(begin, merged);
  }
}

}  // namespace mergepipe
