#pragma once

#include <string>
#include <vector>

#include "mergepipe/comm/communicator.h"

namespace mergepipe {

/// Where one rank runs, and on what.
struct RankPlacement {
  std::string host;
  int threads = 1;
  std::vector<int> cores;  ///< logical CPUs in its affinity mask, ascending
  int host_cores = 1;      ///< that are online on its host; a rank that has them all is not bound

  bool bound() const { return static_cast<int>(cores.size()) < host_cores; }
  bool operator==(const RankPlacement&) const = default;
};

RankPlacement PlacementOfThisRank(int threads);

/// Collective: rank 0 gets the placements of all, in rank order; the others get an empty vector.
Result<std::vector<RankPlacement>> GatherPlacements(Communicator& communicator, int threads);

/// Fields in the order of the struct; integers are 32 bits, lengths 64. What does not fit exactly
/// is refused (kInternal).
std::string SerializePlacement(const RankPlacement& placement);
Result<RankPlacement> ParsePlacement(const std::string& bytes);

}  // namespace mergepipe
