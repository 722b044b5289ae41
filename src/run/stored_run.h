#pragma once

#include <string>

#include "mergepipe/catalog/catalog.h"
#include "mergepipe/io/file.h"
#include "mergepipe/run/records.h"

namespace mergepipe {

/// The folder of a run, which `argument` names: the folder itself (it has a plan.json), the output
/// directory (its manifest names the run), or the run's id, looked up in the catalog (may be null)
/// and under runs_directory. kBadInput naming the nearest known run if there is none.
Result<std::string> FindRunFolder(FileSystem& files, Catalog* catalog,
                                  const std::string& runs_directory, const std::string& argument);

/// Reads a run from its folder, without a catalog. Errors as LoadRun's.
Result<StoredRun> ReadRunFolder(FileSystem& files, const std::string& directory);

}  // namespace mergepipe
