#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mergepipe/comm/communicator.h"
#include "mergepipe/exec/run_slice.h"
#include "mergepipe/exec/slice.h"
#include "mergepipe/format/block_statistics.h"

/// \file
/// Taking statistics: one rank's share of `analyze` or of a probe.
namespace mergepipe {

/// Blocks of one tensor whose statistics are wanted.
struct ScanPart {
  uint32_t tensor = 0;  ///< in the base's layout
  std::string name;
  uint64_t elements = 0;  ///< of the whole tensor; float
  SourceTensor base;
  std::vector<SourceTensor> experts;  ///< one for each expert; absent: not asked for
  BlockSet blocks;                    ///< over all blocks of the tensor
  bool wants_base = false;            ///< statistics of the base too
};

struct ScanSlice {
  uint64_t block_size = 0;
  bool probe = false;  ///< read ProbeSample (plan/statistics.h) of each block, not all of it
  bool allow_nonfinite = false;
  std::vector<SourceFile> base_files;
  std::vector<std::vector<SourceFile>> expert_files;  ///< one list for each expert
  std::vector<std::string> expert_ids;
  std::vector<ScanPart> parts;  ///< in file order
  uint64_t expert_share = 0;    ///< expert bytes that this rank may read
};

struct ScanPartReport {
  uint32_t tensor = 0;
  std::vector<BaseBlockStatistics> base;              ///< of the blocks, ascending; or empty
  std::vector<std::vector<BlockStatistics>> experts;  ///< likewise for each expert
  bool operator==(const ScanPartReport&) const = default;
};

struct ScanReport {
  int rank = 0;
  std::string host;
  uint64_t expert_bytes_read = 0;
  uint64_t base_bytes_read = 0;
  std::vector<ScanPartReport> parts;  ///< in the slice's order
  bool operator==(const ScanReport&) const = default;
};

/// Slices and reports as bytes for another rank, and back. kInternal if the bytes are not theirs.
std::string SerializeScanSlice(const ScanSlice& slice);
Result<ScanSlice> ParseScanSlice(const std::string& bytes);
std::string SerializeScanReport(const ScanReport& report);
Result<ScanReport> ParseScanReport(const std::string& bytes);

/// Expert bytes that a part reads: what expert_share adds up to.
uint64_t ScanExpertBytes(const ScanSlice& slice, const ScanPart& part);

/// Reads each wanted byte once, in large reads in file order where they are neighbours, and takes
/// the statistics on all threads. Collective: all ranks return together after having agreed, each
/// with its own report or all with the same error: kBadInput naming the tensors with NaN or
/// infinite values (unless allowed) or an input that changed; kNoSpace if `limits` cannot hold one
/// block of the base and one of an expert. Fewer threads than `limits` allows run where their
/// buffers would not fit.
Result<ScanReport> RunScan(FileSystem& files, Communicator& communicator, const ScanSlice& slice,
                           const ExecLimits& limits);

}  // namespace mergepipe
