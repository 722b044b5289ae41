#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mergepipe/exec/report.h"
#include "mergepipe/format/output_layout.h"
#include "mergepipe/format/side_files.h"
#include "mergepipe/format/sparse.h"
#include "mergepipe/plan/plan.h"

namespace mergepipe {

/// What an expert gave to one tensor.
struct ManifestSource {
  uint32_t expert = 0;
  BlockSet blocks;           ///< read and merged
  Hash128 read_hash;         ///< over the block hashes of what was read, in block order
  NonFiniteCount nonfinite;  ///< in what was read
  bool differs = false;      ///< an integer tensor that is not the base's

  bool operator==(const ManifestSource&) const = default;
};

struct ManifestTensor {
  std::string name;
  DType dtype = DType::kF32;  ///< in the output
  std::vector<uint64_t> shape;
  TensorRule rule = TensorRule::kMerge;
  std::string reason;
  std::string file;  ///< in the output; empty if it is sparse and has nothing of the tensor
  uint64_t blocks = 0;
  uint64_t touched_blocks = 0;
  // Of a sparse output these four are over the touched blocks only.
  Hash128 hash;       ///< over the hashes of the output's blocks
  Hash128 base_hash;  ///< over the hashes of the base's blocks
  NonFiniteCount base_nonfinite;
  NonFiniteCount made_nonfinite;
  std::vector<ManifestSource> sources;  ///< experts that were read or compared

  /// Blocks for which at least one expert was read.
  BlockSet Touched() const;
  bool operator==(const ManifestTensor&) const = default;
};

struct ManifestFile {
  std::string name;  ///< relative to the output directory
  uint64_t size = 0;
  Hash128 hash;  ///< weight files: over the header's hash and the tensors' hashes in offset order;
                 ///< others: of the bytes

  bool operator==(const ManifestFile&) const = default;
};

/// Bytes moved, by one rank or in total.
struct IoCounts {
  uint64_t probe_bytes_read =
      0;  ///< expert bytes apart from merging: fingerprints, compared integer tensors
  uint64_t expert_bytes_read = 0;  ///< expert bytes to merge
  uint64_t base_bytes_read = 0;
  uint64_t output_bytes_written = 0;
  uint64_t copied_bytes = 0;

  IoCounts& operator+=(const IoCounts& other);
  bool operator==(const IoCounts&) const = default;
};

struct RankIo {
  int rank = 0;
  std::string host;
  IoCounts io;
  bool operator==(const RankIo&) const = default;
};

/// The record of a merge: what went in, what became of every tensor, and the hash of everything
/// that came out.
struct Manifest {
  std::string run_id;
  std::string model_id;
  std::string plan_hash;
  OutputForm output = OutputForm::kFull;
  uint64_t block_size = 0;
  PlannedModel base;
  std::vector<PlannedModel> experts;
  std::vector<ManifestTensor> tensors;  ///< in the base's file order
  std::vector<DroppedTensor> dropped;
  std::vector<ManifestFile> files;       ///< weight files
  std::vector<ManifestFile> side_files;  ///< all others, the manifest itself apart
  std::vector<LeftOutFile> left_out;     ///< files of the base that were not copied
  std::optional<uint64_t> budget_bytes;
  uint64_t planned_expert_bytes = 0;
  std::optional<ErrorBound> bound;    ///< the plan's
  IoCounts io;                        ///< of all attempts, as far as they led to the output
  std::vector<RankIo> by_rank;        ///< of the last attempt
  uint64_t resumed_expert_bytes = 0;  ///< of io, expert bytes that earlier attempts read
  uint64_t reread_bytes = 0;  ///< expert bytes that earlier attempts read, or began to, in vain: on
                              ///< top of io

  bool operator==(const Manifest&) const = default;
};

/// What earlier attempts at the output did. Their reports, with those of the ranks, cover it.
struct EarlierAttempts {
  std::span<const PartReport> reports;
  IoCounts io;
  uint64_t lost_bytes = 0;
};

/// Fills tensors, files and io of a manifest that states its form, from what was planned and what
/// the ranks report; kInternal if the reports do not cover every block exactly once. `sparse` is
/// the record of the sparse output that the touched blocks were taken from, if they were not
/// merged: what the experts gave is copied from it, and kBadInput says where the blocks, or the
/// base's, are not those of its hashes.
Status RecordReports(const Plan& plan, const OutputLayout& layout,
                     const std::vector<SliceReport>& reports, Manifest& manifest,
                     const Manifest* sparse = nullptr, const EarlierAttempts& earlier = {});

/// A tensor's hash from those of its blocks, and a weight file's from its header and tensors (in
/// offset order).
Hash128 TensorHash(const std::vector<Hash128>& blocks);
Hash128 WeightFileHash(const Hash128& header, const std::vector<Hash128>& tensors);

}  // namespace mergepipe
