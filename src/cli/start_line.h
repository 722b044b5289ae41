#pragma once

#include <string>
#include <vector>

#include "mergepipe/comm/placement.h"

namespace mergepipe {

/// What runs where, in one line, from the placements of all ranks:
/// "4 ranks on 2 hosts (n1, n2): 2 threads each, 2 cores each (0-1; 2-3)".
std::string StartLine(const std::vector<RankPlacement>& ranks);

/// What is likely a mistake: ranks with fewer cores than threads, alone or together with the others
/// of their host, and a process that is alone in a job of several tasks. One line each.
std::vector<std::string> StartWarnings(const std::vector<RankPlacement>& ranks,
                                       const LaunchInfo& launch);

/// Collective: tells both on stderr, from rank 0.
Status AnnounceStart(Communicator& communicator, int threads);

}  // namespace mergepipe
