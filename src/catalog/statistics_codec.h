#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "mergepipe/format/block_statistics.h"

/// \file
/// Statistics of blocks as the catalog keeps them: packed records in block order, all numbers
/// little-endian.
///
///     BlockStatistics, 64 bytes      sum_squares (f64), max_abs (f32), nonzeros (u32),
///                                    sketch (32 times i8), hash (high and low half, u64 each)
///     BaseBlockStatistics, 24 bytes  sum_squares (f64), hash (likewise)
namespace mergepipe {

template <typename Block>
inline constexpr size_t kRecordBytes = 0;
template <>
inline constexpr size_t kRecordBytes<BlockStatistics> = 64;
template <>
inline constexpr size_t kRecordBytes<BaseBlockStatistics> = 24;

/// Whether the numbers can come from a block: sums finite and not negative, no NaN.
bool IsPossible(const BlockStatistics& block);
bool IsPossible(const BaseBlockStatistics& block);

std::vector<std::byte> Pack(std::span<const BlockStatistics> blocks);
std::vector<std::byte> Pack(std::span<const BaseBlockStatistics> blocks);

/// Appends the records in `bytes`, whose size is a multiple of a record's. False if one is not
/// possible.
bool Unpack(std::span<const std::byte> bytes, std::vector<BlockStatistics>& blocks);
bool Unpack(std::span<const std::byte> bytes, std::vector<BaseBlockStatistics>& blocks);

}  // namespace mergepipe
