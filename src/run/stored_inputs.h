#pragma once

#include <string>

#include "mergepipe/plan/plan.h"
#include "mergepipe/run/merge.h"
#include "mergepipe/run/models.h"
#include "run/inputs.h"

namespace mergepipe {

/// Finds the very model that a stored plan names: at `given` (a path or a registered id), or if
/// that is empty where the catalog (may be null) has it. `option` names the option in errors;
/// `fingerprint_bytes` is what may be read of it to take its fingerprint. kBadInput if it is not
/// found, or is another model.
Result<ResolvedModel> FindPlannedModel(FileSystem& files, ModelResolver& resolver, Catalog* catalog,
                                       const PlannedModel& planned, const std::string& given,
                                       const std::string& option, uint64_t fingerprint_bytes);

/// All inputs of a stored plan, where `given` (paths or ids; may be empty) or the catalog has them;
/// the experts' fingerprints are taken within what the plan has for them. The plan is data from
/// elsewhere: kBadInput also if this program could not have made it from these inputs.
Result<ResolvedInputs> FindPlannedInputs(FileSystem& files, const std::string& catalog,
                                         const MergeInputs& given, const Plan& plan);

}  // namespace mergepipe
