#pragma once

#include <set>
#include <string>
#include <vector>

#include "mergepipe/io/file.h"
#include "mergepipe/run/recover.h"

namespace mergepipe {

/// What killed merges left in one directory beside their targets, by path. Takes no lock.
Result<std::vector<Leftover>> FindLeftoversIn(FileSystem& files, const std::string& directory);

/// Run folders without a manifest, by path; none if there is no such directory.
Result<std::vector<Leftover>> FindOrphanedRuns(FileSystem& files,
                                               const std::string& runs_directory);

/// Settles it under its lock, after looking again whether it may be: sets `settled`, `kept` or
/// `failure`.
void Settle(FileSystem& files, Leftover& leftover);

}  // namespace mergepipe
