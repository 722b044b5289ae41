#pragma once

#include <cstdint>

#include "mergepipe/io/file.h"

namespace mergepipe {

/// The first place in a buffer, at or after `at`, for bytes of a file from `offset` on: one that
/// lets them be transferred directly. The buffer begins at a multiple of kDirectAlignment.
inline uint64_t DirectPlace(uint64_t offset, uint64_t at) {
  constexpr uint64_t kUnit = kDirectAlignment;
  return at + (offset % kUnit + kUnit - at % kUnit) % kUnit;
}

}  // namespace mergepipe
