#pragma once

#include <array>
#include <cstdint>
#include <span>

/// \file
/// Philox4x32-10, a counter-based random function (Salmon et al., "Parallel random numbers: as easy
/// as 1, 2, 3", SC'11, section 4.3): no state and no order, so any part of a tensor can be drawn by
/// anyone.
namespace mergepipe {

using PhiloxKey = std::array<uint32_t, 2>;
using PhiloxCounter = std::array<uint32_t, 4>;

/// The four words of one counter value.
std::array<uint32_t, 4> Philox(PhiloxCounter counter, PhiloxKey key);

/// draws[j] is the draw of element i = first + j of `stream`: word i % 4 of the counter
/// (low half of i / 4, high half of i / 4, stream, 0).
void DrawElements(PhiloxKey key, uint32_t stream, uint64_t first, std::span<uint32_t> draws);

}  // namespace mergepipe
