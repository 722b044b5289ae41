#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "mergepipe/kernels/philox.h"

namespace mergepipe {

/// An endless sequence of random numbers that can be read at any index: no state, no order. Streams
/// of other names are independent: the name is hashed to a key of Philox4x32-10.
class RandomStream {
 public:
  RandomStream(uint64_t seed, uint32_t model, std::string_view part, std::string_view tensor);

  /// Uniform in [0, 65535].
  uint32_t Draw16(uint64_t index) const;
  /// out[i] = the number of index first + i, about normal with mean 0 and variance 1: the sum of
  /// four uniform 16-bit integers. So it lies within +-3.47, and needs no function that libraries
  /// round differently.
  void FillNormal(uint64_t first, std::span<float> out) const;

 private:
  PhiloxKey key_;
};

}  // namespace mergepipe
