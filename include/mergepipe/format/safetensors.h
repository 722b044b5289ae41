#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mergepipe/base/dtype.h"
#include "mergepipe/base/error.h"

/// \file
/// The safetensors header, read and written. A file is
///
///     u64 little-endian N | N bytes of JSON | data
///
/// Rules, all checked before an allocation depends on them (huggingface safetensors README,
/// "Format", and the limits of its reference reader): N <= 100,000,000 and 8 + N <= file size; the
/// header is UTF-8, starts with '{', may be padded with trailing spaces; `__metadata__` maps
/// strings to strings; no duplicate keys at any level; each tensor has exactly dtype, shape and
/// data_offsets; shapes and offsets are non-negative integers; begin <= end; sorted by offset the
/// tensors are contiguous from 0, with no hole and no overlap, and the last one ends at the end of
/// the file; end - begin = product(shape) x dtype size, without overflow. Rank 0 and empty
/// tensors are legal; empty names and more than kMaxRank dimensions are not. Unknown dtypes are
/// refused by name, FP8, FP4 and FP6 as quantised.
namespace mergepipe {

inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;
/// Dimensions of a tensor: PyTorch's limit (dim_bitset_size). It bounds the memory that a shape
/// asks for.
inline constexpr uint64_t kMaxRank = 64;
/// Our files' data start at a multiple of this, by padding the header with spaces.
inline constexpr uint64_t kDataAlignment = 4096;

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;
  uint64_t begin = 0;  ///< relative to the start of the data
  uint64_t end = 0;

  bool operator==(const SafetensorsEntry&) const = default;
};

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::vector<SafetensorsEntry> entries;  ///< sorted by (begin, end, name)

  bool operator==(const SafetensorsHeader&) const = default;
};

/// product(shape) x dtype size, or nothing on overflow.
std::optional<uint64_t> CheckedTensorBytes(DType dtype, std::span<const uint64_t> shape);

/// Parses the N bytes of JSON of a file whose data are `data_bytes` long. `subject` (the path)
/// opens every problem; a problem of one tensor names it too. At most 20 problems are listed, the
/// others counted.
Result<SafetensorsHeader> ParseSafetensorsHeader(std::string_view json, uint64_t data_bytes,
                                                 const std::string& subject);

/// The bytes before the data: length, JSON, and spaces up to a multiple of kDataAlignment. The
/// entries must be contiguous from 0 in their order.
std::string SerializeSafetensorsHeader(const SafetensorsHeader& header);

}  // namespace mergepipe
