#pragma once

#include <string>
#include <vector>

#include "mergepipe/comm/communicator.h"
#include "mergepipe/io/file.h"
#include "mergepipe/run/merge.h"

namespace mergepipe {

/// How the output comes together, as it was decided.
struct Gathering {
  bool to_root = false;  ///< rank 0 writes for all
  /// Hosts that do not see the output's directory, where that was looked at.
  std::vector<std::string> blind_hosts;
};

/// Collective. Finds out whether every rank sees rank 0's new directory `staging` (a path that
/// counts on rank 0 only), by a file with a random text in it. kUsage naming the hosts that do not,
/// if `mode` is kShared.
Result<Gathering> DecideGathering(FileSystem& files, Communicator& communicator, GatherMode mode,
                                  const std::string& staging);

}  // namespace mergepipe
