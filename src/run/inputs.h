#pragma once

#include <string>
#include <vector>

#include "mergepipe/plan/planner.h"
#include "mergepipe/run/merge.h"
#include "mergepipe/run/models.h"

namespace mergepipe {

/// Base and experts of a merge, with their headers and fingerprints.
struct ResolvedInputs {
  ResolvedModel base;
  std::vector<ResolvedModel> experts;
  uint64_t probe_bytes_read = 0;  ///< of experts, for fingerprints

  /// Those that are to be put into the catalog.
  std::vector<ModelRecord> Changed() const;
  std::vector<const ModelRecord*> Experts() const;
  std::vector<std::string> Paths() const;
};

/// Reads all headers, then the fingerprints that are not known, within `budget_bytes`. Problems of
/// all models are reported together.
Result<ResolvedInputs> ResolveInputs(FileSystem& files, Catalog* catalog, const MergeInputs& inputs,
                                     std::optional<uint64_t> budget_bytes);

/// The headers alone: no weights are read, and no fingerprints taken. Problems of all models are
/// reported together.
Result<ResolvedInputs> FindInputs(FileSystem& files, Catalog* catalog, const MergeInputs& inputs);

/// Puts those models into the catalog that it does not have as they are; then none is `changed`.
Status PutModels(Catalog& catalog, ResolvedInputs& inputs);

/// kBadInput naming every file that is not what it was when its header was read: size, time, inode,
/// device. The last look, before an output is published. Headers and fingerprints are not taken
/// again: every write moves the time, every replacement the inode, and who sets a time back on
/// purpose also spares 16 samples; a second fingerprint would double what the budget pays for it.
/// What was read is known by its hashes: an analyzed expert's blocks are checked as they are read,
/// and `verify --full` and `replay` compare all of them with the manifest.
Status CheckUnchanged(FileSystem& files, const ModelLayout& layout);

/// The same for base and experts.
Status CheckUnchanged(FileSystem& files, const ResolvedInputs& inputs);

/// What a person should know before the merge, beyond errors.
std::vector<std::string> InputWarnings(const ResolvedInputs& inputs, const Plan& plan);

}  // namespace mergepipe
