#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mergepipe/base/error.h"
#include "mergepipe/io/file.h"

namespace mergepipe {

struct RecoverOptions {
  std::string catalog;
  std::string runs_directory = "runs";
  bool apply = false;  ///< false: only looks; the outcome says what would be done
};

struct RecoverOutcome {
  enum class Found { kWhole, kDamaged, kAbsent };
  Found found = Found::kWhole;
  std::string damage;             ///< what is wrong with a damaged one
  std::string catalog;            ///< the file itself, if `catalog` was a link to it
  std::string old_file;           ///< where the damaged one is now; empty if nothing was replaced
  uint64_t models = 0;            ///< kept from the damaged one
  uint64_t plans = 0;             ///< likewise
  uint64_t runs = 0;              ///< likewise
  uint64_t statistics = 0;        ///< tensors with statistics, likewise
  std::vector<std::string> lost;  ///< a line each; see catalog/salvage.h
  uint64_t lost_models = 0;       ///< lines of `lost` that tell of models
  std::vector<std::string> added_runs;   ///< ids of runs that only their folders knew
  std::vector<std::string> added_plans;  ///< ids of plans, likewise
  /// Run folders that do not count, and why; none of runs that the catalog knows already.
  std::vector<std::string> left_out_runs;

  /// Whether there is, or was, anything to do.
  bool Changes() const {
    return found != Found::kWhole || !added_runs.empty() || !added_plans.empty();
  }
};

/// Makes the catalog whole again.
///
/// One that is whole only gets the runs that lie under runs_directory and that it does not know.
/// For a damaged one a new catalog is built beside it, of every record that can be read and whose
/// checksum holds, and of the run folders; then the two change names, and the old file stays as
/// `<catalog>.damaged-<UTC>`. For one that is gone, a new one is made of the run folders. Models
/// that are lost must be registered again: no record has their paths.
///
/// A run folder counts if plan.json and manifest.json have their own hashes, and the output
/// directory that meta.json names has the same manifest.
///
/// Nothing is ever deleted. Errors: kBadInput for what is not a catalog or is of a newer schema,
/// and if there is neither a catalog nor a run to make one of; kIo for one that is locked.
Result<RecoverOutcome> RecoverCatalog(FileSystem& files, const RecoverOptions& options);

}  // namespace mergepipe
