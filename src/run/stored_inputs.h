#pragma once

#include <string>

#include "mergepipe/plan/plan.h"
#include "mergepipe/run/models.h"

namespace mergepipe {

/// Finds the very model that a stored plan names: at `given` (a path or a registered id), or if
/// that is empty where the catalog (may be null) has it. `option` names the option in errors;
/// `fingerprint_bytes` is what may be read of it to take its fingerprint. kBadInput if it is not
/// found, or is another model.
Result<ResolvedModel> FindPlannedModel(FileSystem& files, ModelResolver& resolver, Catalog* catalog,
                                       const PlannedModel& planned, const std::string& given,
                                       const std::string& option, uint64_t fingerprint_bytes);

}  // namespace mergepipe
