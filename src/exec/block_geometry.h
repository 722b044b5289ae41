#pragma once

#include <algorithm>
#include <cstdint>

namespace mergepipe {

/// Where blocks lie in a tensor's stored bytes.
struct BlockGeometry {
  uint64_t block_size;  ///< elements
  uint64_t elements;    ///< of the tensor

  uint64_t FirstElement(uint64_t block) const { return block * block_size; }
  uint64_t Elements(uint64_t block) const { return ElementsBetween(block, block + 1); }
  uint64_t ElementsBetween(uint64_t begin, uint64_t end) const {
    return std::min(elements, end * block_size) - std::min(elements, begin * block_size);
  }
};

}  // namespace mergepipe
