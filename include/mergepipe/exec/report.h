#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mergepipe/base/error.h"
#include "mergepipe/base/hash.h"

namespace mergepipe {

/// NaN and Inf met in one tensor.
struct NonFiniteCount {
  uint64_t nan = 0;
  uint64_t inf = 0;

  bool any() const { return nan != 0 || inf != 0; }
  NonFiniteCount& operator+=(const NonFiniteCount& other) {
    nan += other.nan;
    inf += other.inf;
    return *this;
  }
  bool operator==(const NonFiniteCount&) const = default;
};

/// What became of blocks [begin, end) of a tensor; in a sparse output, of those that are touched.
struct PartReport {
  uint32_t tensor = 0;
  uint64_t begin = 0;
  std::vector<Hash128> block_hashes;  ///< of the output
  std::vector<Hash128> base_hashes;   ///< of the base, as stored
  std::vector<std::vector<Hash128>>
      read_hashes;                     ///< for each expert, of its selected blocks as stored
  std::vector<NonFiniteCount> inputs;  ///< of the base, then of each expert (selected blocks)
  NonFiniteCount made;                 ///< in the output where the base is finite
  std::vector<uint8_t> differs;  ///< for each expert: a compared integer tensor is not the base's

  bool operator==(const PartReport&) const = default;
};

/// What one rank did.
struct SliceReport {
  int rank = 0;
  std::string host;
  uint64_t expert_bytes_read = 0;   ///< merging
  uint64_t compare_bytes_read = 0;  ///< comparing integer tensors
  uint64_t base_bytes_read = 0;
  uint64_t output_bytes_written = 0;
  uint64_t copied_bytes = 0;  ///< of these, bytes of the base that went to the output unchanged
  double merge_seconds = 0;
  double sync_seconds = 0;
  // Of merge_seconds, while some thread was reading, computing, writing; and reading or writing.
  double read_seconds = 0;
  double compute_seconds = 0;
  double write_seconds = 0;
  double transfer_seconds = 0;
  uint64_t peak_memory_bytes = 0;
  int threads = 0;
  std::vector<PartReport> parts;  ///< in the slice's order

  bool operator==(const SliceReport&) const = default;
};

struct Slice;
struct TensorPart;

/// Whether blocks of `part` are what is known of them (kBadInput if not); adds to `nonfinite` NaN
/// and Inf that are refused.
Status CheckReport(const Slice& slice, const TensorPart& part, const PartReport& report,
                   ProblemList& nonfinite);

std::string SerializeReport(const SliceReport& report);
/// kInternal if the bytes are not those of a report.
Result<SliceReport> ParseReport(const std::string& bytes);

}  // namespace mergepipe
