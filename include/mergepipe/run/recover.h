#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mergepipe/base/error.h"
#include "mergepipe/io/file.h"

namespace mergepipe {

struct RecoverOptions {
  std::string catalog;
  std::string runs_directory = "runs";
  bool apply = false;  ///< false: only looks; the outcome says what would be done
  std::vector<std::string> outputs = {};      ///< further outputs to look beside; need not exist
  std::vector<std::string> directories = {};  ///< further directories to look into
};

/// What a killed merge left behind.
struct Leftover {
  enum class Kind {
    kStaging,    ///< ".<name>.mergepipe-<plan id>": an output that was not finished or published
    kJournal,    ///< the same and ".journal": how far it came
    kReplaced,   ///< ".<name>.mergepipe-previous": an old output, amid being replaced
    kLock,       ///< ".<name>.mergepipe.lock" that nobody holds
    kRunFolder,  ///< a run folder without a manifest
  };
  Kind kind = Kind::kStaging;
  std::string path;
  std::string target;                 ///< the output's path; empty for a run folder
  uint64_t bytes = 0;                 ///< of all files in it
  uint64_t age_seconds = 0;           ///< since something in it was last written
  bool has_journal = false;           ///< kStaging: the same merge goes on from it
  bool target_exists = false;         ///< kReplaced: the new output is in place
  std::string kept;                   ///< why it is not touched; empty if it can be settled
  bool settled = false;               ///< it is gone, or a kReplaced one has its name back
  std::optional<Error> failure = {};  ///< of settling it
};

struct RecoverOutcome {
  enum class Found {
    kWhole,
    kDamaged,
    kAbsent,
    kNothing,  ///< neither a catalog nor a run to make one of; only leftovers were asked for
  };
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

  std::vector<Leftover> leftovers;  ///< by path

  /// Whether there is, or was, anything to do: to the catalog, or at all.
  bool ChangesCatalog() const {
    return found == Found::kDamaged || found == Found::kAbsent || !added_runs.empty() ||
           !added_plans.empty();
  }
  bool Changes() const;
};

/// Makes the catalog whole again, and clears away what killed merges left.
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
/// Of a catalog nothing is ever deleted. Leftovers are looked for beside the outputs of all known
/// runs and of `outputs`, in `directories` (which must exist) and in runs_directory. Only what this
/// program made is removed, and only if nobody works on it: the name fits to the last letter, it is
/// no link, its lock is free (and held while it is removed), and inside are only regular files and
/// directories, none hidden but ours; of a run folder, only records of ours. All else is reported
/// as `kept`. A replaced output goes if the new one is in place, else gets its name back.
///
/// Errors: kBadInput for what is not a catalog or is of a newer schema, and if there is neither a
/// catalog nor a run to make one of (unless places to look at are given); kIo for one that is
/// locked. What could not be removed is in the outcome.
Result<RecoverOutcome> RecoverCatalog(FileSystem& files, const RecoverOptions& options);

}  // namespace mergepipe
