#pragma once

#include <cstdint>
#include <vector>

#include "mergepipe/comm/communicator.h"
#include "mergepipe/io/file.h"
#include "mergepipe/run/merge.h"
#include "run/inputs.h"

namespace mergepipe {

/// Collective. Whether every host has the inputs that rank 0 sees (`inputs`, which counts there
/// only): one rank of each other host looks at the size and the time of every file, and, if `room`
/// (bytes of the budget, rank 0's) covers it for all hosts, takes the models' fingerprints.
/// kBadInput naming the host and the file or the model. What was read of experts is added to
/// `read`, rank 0's list by rank. False on rank 0 if there was no room.
Result<bool> CheckInputsOnHosts(FileSystem& files, Communicator& communicator,
                                const ResolvedInputs* inputs, uint64_t room,
                                std::vector<PlanningIo>* read);

/// Collective, before an output is published: whether the inputs (rank 0's) still are what they
/// were, by CheckUnchanged on rank 0, and by the size and time of every file on every other host.
/// kBadInput naming the files, and the host. Takes no bytes of the budget.
Status CheckInputsUnchanged(FileSystem& files, Communicator& communicator,
                            const ResolvedInputs* inputs);

}  // namespace mergepipe
