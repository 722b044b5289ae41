#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mergepipe/format/output_layout.h"

/// \file
/// A sparse output: a directory that holds the touched blocks of a merge and no others, with the
/// records and side files of the full output. Its weights are one safetensors file, kSparseName:
///
///     __metadata__       {"format": "mergepipe.sparse/1", "base_fingerprint": 32 hex digits,
///                        "block_size": a number}
///     <tensor>.index     I64, [m]: numbers of the tensor's touched blocks, ascending
///     <tensor>.blocks    the output's dtype, flat: their elements, one block after the other
///
/// All indexes come first, then all blocks, each in the order of the base's tensors; a tensor
/// without a touched block has neither. The data start at a multiple of kDataAlignment. Every byte
/// before the blocks follows from the record of the merge (ComputeSparseLayout), so a reader
/// compares them instead of believing them; a file of another version has another "format".
namespace mergepipe {

inline constexpr const char* kSparseName = "sparse.safetensors";
inline constexpr const char* kSparseFormat = "mergepipe.sparse/1";

/// Whether an output holds every tensor, or touched blocks only.
enum class OutputForm : uint8_t { kFull, kSparse };

/// A tensor of the output of which `blocks` (ascending, each once) are touched.
struct SparseTensor {
  std::string name;
  DType dtype = DType::kF32;  ///< in the output
  std::vector<uint64_t> shape;
  std::vector<uint64_t> blocks;
};

/// Where every byte of a sparse output goes, as an OutputLayout of one file whose `header` ends
/// with the indexes. `tensors` are those given, in their order, each with the `offset` of the first
/// element of its first touched block (untouched ones with that of the next tensor's). kBadInput if
/// a size overflows or the header becomes too long.
Result<OutputLayout> ComputeSparseLayout(const std::vector<SparseTensor>& tensors,
                                         uint64_t block_size, const Hash128& base_fingerprint);

}  // namespace mergepipe
