#pragma once

#include "mergepipe/run/merge.h"

namespace mergepipe {

struct MaterializeOptions {
  std::string sparse;  ///< the directory of a sparse output, or the id of its run
  std::string catalog;
  std::string base;    ///< a registered id, or a path; empty: the model that the plan names
  MergeTarget target;  ///< of the full form
  ExecLimits limits;
  std::vector<std::string> command_line;
};

/// Makes the full checkpoint of a sparse output and its base: the very bytes, but for the manifest,
/// of the merge with a full output. No expert is read. kBadInput if the sparse output or the base
/// is not what was merged. Collective, as RunMerge; the run that is recorded can be verified and
/// replayed as a merge can.
Result<MergeOutcome> RunMaterialize(FileSystem& files, Communicator& communicator,
                                    const MaterializeOptions& options);

}  // namespace mergepipe
