#pragma once

#include <string>
#include <vector>

#include "mergepipe/comm/communicator.h"
#include "mergepipe/exec/run_slice.h"
#include "mergepipe/run/merge.h"

namespace mergepipe {

struct AnalyzeOptions {
  MergeInputs inputs;
  uint64_t block_size = 640'000;  ///< elements
  /// Also what the catalog has already. If the base turns out to have changed, all that was known
  /// of other experts is dropped.
  bool force = false;
  bool allow_nonfinite = false;
  ExecLimits limits;
};

struct AnalyzedExpert {
  std::string id;
  bool read = false;  ///< something of it was read; else the catalog had all
};

struct AnalyzeOutcome {
  std::string base;
  std::vector<AnalyzedExpert> experts;
  uint64_t blocks = 0;           ///< of the base's float tensors
  std::vector<PlanningIo> read;  ///< by rank; fingerprints are rank 0's
  double seconds = 0;
};

/// Exact statistics of every block of the experts' deltas into the catalog. Reads only experts
/// without statistics, and the base; each byte once. Finished tensors are committed as it goes: a
/// run that was killed goes on from there. Collective; the outcome is rank 0's, an error is
/// everyone's: kBadInput for inputs that do not fit, or with NaN or infinite values (unless
/// allowed).
Result<AnalyzeOutcome> RunAnalyze(FileSystem& files, Communicator& communicator,
                                  const AnalyzeOptions& options);

}  // namespace mergepipe
