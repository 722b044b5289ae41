#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "mergepipe/comm/communicator.h"
#include "mergepipe/exec/run_slice.h"
#include "mergepipe/run/merge.h"
#include "mergepipe/run/records.h"

namespace mergepipe {

struct AuditOptions {
  std::string directory;  ///< an output, which VerifyOutput has found to be what its manifest says
  RecordPlaces places;    ///< its plan comes from the run folder
  MergeInputs inputs;     ///< paths to take instead of the registered ones; may be empty
  uint64_t sample = 16;   ///< blocks of the output to make again
  std::optional<uint64_t> seed;  ///< of the choice of blocks; none: a random one
  ExecLimits limits;
};

struct AuditOutcome {
  uint64_t input_bytes = 0;      ///< of base and experts, hashed
  uint64_t input_tensors = 0;    ///< tensors of base and experts that these are of
  uint64_t sampled_blocks = 0;   ///< made again and compared
  uint64_t sampled_tensors = 0;  ///< that they are of
  uint64_t seed = 0;
};

/// Whether an output is what its inputs and its plan give. Every block of the inputs that the merge
/// read is hashed and compared with the manifest's hash of each tensor and expert; then a random
/// sample of the output's blocks is merged again by the engine of the merge itself and compared
/// with what is on disk. Of a tensor whose thresholds come from all of its blocks (`ties` with
/// tensor scope), all blocks are. Expert bytes that are read here are no budget's.
///
/// kBadInput naming each input that is missing or is not what the merge read; kVerification naming
/// each block that is not what the plan gives. Collective; the outcome is rank 0's.
Result<AuditOutcome> AuditOutput(FileSystem& files, Communicator& communicator,
                                 const AuditOptions& options);

}  // namespace mergepipe
