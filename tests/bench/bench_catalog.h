#pragma once

#include <memory>
#include <string>

#include "plan/family.h"
#include "run/known_statistics.h"

namespace mergepipe::test {

/// As if the models' headers had been read and were what the catalog says.
ResolvedInputs Unchanged(const Family& family);

/// Makes a catalog of the family with `statistics` of all its experts and of its base; one expert
/// is a transaction.
Status MakeBenchCatalog(const std::string& path, const Family& family,
                        StatisticsSource& statistics);

/// What the catalog at `path` knows of the family, by the way that a merge goes. kBadInput if it
/// has not all statistics.
Result<std::shared_ptr<KnownStatistics>> OpenBenchCatalog(const std::string& path,
                                                          const Family& family,
                                                          const PlanInput& input);

struct CatalogSize {
  uint64_t bytes = 0;
  /// Of one expert, with its share of what is not an expert's alone (the base's statistics).
  double bytes_per_million_blocks = 0;
};
Result<CatalogSize> MeasureCatalog(const std::string& path, const Family& family);

}  // namespace mergepipe::test
