#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "mergepipe/strategy/strategy.h"

namespace mergepipe {

/// Elements that are worked on together: a few float arrays of this length fit the first-level
/// cache.
inline constexpr size_t kTile = 1024;

/// body(begin, length) for the tiles of `size` elements, in order.
template <typename Body>
void ForEachTile(uint64_t size, Body body) {
  for (uint64_t begin = 0; begin < size; begin += kTile) {
    body(begin, static_cast<size_t>(std::min<uint64_t>(kTile, size - begin)));
  }
}

}  // namespace mergepipe
