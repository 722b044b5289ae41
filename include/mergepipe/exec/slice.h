#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mergepipe/base/dtype.h"
#include "mergepipe/base/error.h"
#include "mergepipe/base/hash.h"
#include "mergepipe/format/sparse.h"
#include "mergepipe/io/file.h"
#include "mergepipe/plan/block_set.h"
#include "mergepipe/plan/strategy_options.h"

/// \file
/// What one rank is told to do. Everything in it is resolved: no rank but 0 reads a header, a
/// catalog or the plan.
namespace mergepipe {

/// A weight file that a rank opens for reading. It must still be as rank 0 saw it: same size and
/// time.
struct SourceFile {
  std::string path;
  uint64_t size = 0;
  int64_t mtime_ns = 0;
  uint64_t data_begin = 0;
};

/// A tensor in a SourceFile.
struct SourceTensor {
  bool present = false;
  DType dtype = DType::kF32;
  uint32_t file = 0;
  uint64_t offset = 0;  ///< of element 0, absolute
};

/// Blocks [begin, end) of one output tensor, which this rank makes.
struct TensorPart {
  uint32_t tensor = 0;  ///< in the plan
  std::string name;
  uint64_t elements = 0;  ///< of the whole tensor
  uint64_t begin = 0;     ///< blocks
  uint64_t end = 0;
  bool merge = false;    ///< by the strategy; else the base's bytes
  bool compare = false;  ///< read the experts' bytes too and compare them with the base's
  uint32_t reads =
      1;  ///< 1: hold the selected bytes while observing; more: read them again in each round
  SourceTensor base;
  DType out_dtype = DType::kF32;
  uint32_t out_file = 0;
  uint64_t out_offset = 0;  ///< of the first block of the part that is written, absolute
  BlockSet touched;         ///< blocks of [begin, end) that are not simply the base's
  /// Where the touched blocks lie, made already, one after the other: in Slice::sparse_file, the
  /// offset that of the part's first one. If it is absent they are merged.
  SourceTensor sparse;
  std::vector<SourceTensor> experts;  ///< one for each expert; their dtypes are those of the plan
  std::vector<BlockSet> selected;     ///< one for each expert; only blocks of [begin, end)
  std::vector<uint64_t> selected_elements;  ///< of the whole tensor, one for each expert
  /// For each expert, of its selected blocks in order: what their hashes are known to be; empty if
  /// they are not known. Then the same of the base, for all blocks of [begin, end); zero for one
  /// that is not known, or not finite.
  std::vector<std::vector<Hash128>> known_hashes;
  std::vector<Hash128> known_base_hashes;
  /// Ranks that make parts of this tensor; their statistics are exchanged if there are several.
  int first_rank = 0;
  int last_rank = 0;
  /// Neighbouring shared tensors have different parities, so that no rank waits for a neighbour's
  /// neighbour.
  uint32_t shared_ordinal = 0;
  /// TensorMerge::Conclusion of the whole tensor, from an earlier attempt: it need not be observed.
  /// Empty if there is none.
  std::string conclusion;

  bool shared() const { return first_rank != last_rank; }
};

struct Slice {
  uint64_t block_size = 0;
  StrategyOptions strategy;
  OutputForm form = OutputForm::kFull;
  bool allow_nonfinite = false;
  bool gather_to_root = false;  ///< rank 0 writes the output of all
  /// Blocks of the base that stay as they are, and whose hashes are known, go from file to file.
  /// Else they are read, and compared with what is known.
  bool copies_known_blocks = false;
  std::vector<SourceFile> base_files;
  std::vector<std::vector<SourceFile>> expert_files;  ///< one list for each expert
  std::vector<std::string> expert_ids;
  SourceFile sparse_file;  ///< of TensorPart::sparse
  std::vector<std::string>
      output_files;  ///< paths in the staging directory; they exist with their full size
  std::vector<TensorPart> parts;  ///< in file order
  std::string journal;         ///< file in which this rank records what it has finished; it is new
  Hash128 identity;            ///< of the output, for the journal
  uint64_t merge_share = 0;    ///< expert bytes that may be read to merge
  uint64_t compare_share = 0;  ///< and to compare integer tensors
};

/// A slice as bytes for another rank, and back. kInternal if the bytes are not those of a slice.
std::string SerializeSlice(const Slice& slice);
Result<Slice> ParseSlice(const std::string& bytes);

}  // namespace mergepipe
