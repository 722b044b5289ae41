#pragma once

#include <string>

#include "mergepipe/catalog/catalog.h"
#include "mergepipe/io/file.h"
#include "mergepipe/run/records.h"

namespace mergepipe {

/// The folder of a run: `run` itself if it is a path with a plan.json in it, else what the catalog
/// (may be null) knows, else runs_directory/<run>. kBadInput naming the nearest known run if there
/// is none.
Result<std::string> FindRunFolder(FileSystem& files, Catalog* catalog,
                                  const std::string& runs_directory, const std::string& run);

}  // namespace mergepipe
