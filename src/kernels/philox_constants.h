#pragma once

#include <cstddef>
#include <cstdint>

namespace mergepipe {

inline constexpr uint64_t kFactor0 = 0xd2511f53;
inline constexpr uint64_t kFactor1 = 0xcd9e8d57;
inline constexpr uint32_t kStep0 = 0x9e3779b9;
inline constexpr uint32_t kStep1 = 0xbb67ae85;

/// Draws that are made together: what the widest vectors give, twice.
inline constexpr size_t kDrawBatch = 64;

}  // namespace mergepipe
