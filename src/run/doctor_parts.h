#pragma once

#include <string>
#include <vector>

#include "mergepipe/run/doctor.h"

/// \file
/// The parts of an examination: each adds what it finds.
namespace mergepipe {

using Findings = std::vector<Finding>;

/// The program and its libraries.
void ExamineProgram(Findings& findings);
/// Memory and limits of this process.
void ExamineLimits(Findings& findings);
/// Collective. The launcher, whether all ranks run the same program, and their cores.
Status ExamineRanks(Communicator& communicator, Findings& findings);

/// The directories that a merge writes into, and those that it reads.
void ExaminePlaces(FileSystem& files, const DoctorOptions& options, Findings& findings);
/// What another host than rank 0's must see.
void ExamineSharedPlaces(FileSystem& files, const DoctorOptions& options, Findings& findings);
/// Models among the inputs.
void ExamineInputs(FileSystem& files, const DoctorOptions& options, Findings& findings);

/// The catalog, its models, and what killed merges left.
void ExamineRecords(FileSystem& files, const DoctorOptions& options, Findings& findings);

}  // namespace mergepipe
