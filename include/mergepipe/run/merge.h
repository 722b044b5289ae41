#pragma once

#include <optional>
#include <string>
#include <vector>

#include "mergepipe/comm/communicator.h"
#include "mergepipe/exec/run_slice.h"
#include "mergepipe/format/sparse.h"
#include "mergepipe/io/publish.h"
#include "mergepipe/manifest/manifest.h"
#include "mergepipe/plan/plan.h"
#include "mergepipe/plan/planner.h"

namespace mergepipe {

/// The inputs of a merge, as the user names them.
struct MergeInputs {
  std::string catalog;               ///< file; made if absent
  std::string base;                  ///< a registered id, or a path
  std::vector<std::string> experts;  ///< likewise
};

/// Who writes the output of a job with several ranks.
enum class GatherMode {
  kAuto,    ///< kShared where all ranks see the output's directory, else kRoot
  kShared,  ///< each rank its own part
  kRoot,    ///< rank 0 all of it; the others send it what they made
};

/// Where the results go.
struct MergeTarget {
  std::string directory;
  std::string model_id;  ///< empty: the directory's name
  std::string runs_directory = "runs";
  OutputForm form = OutputForm::kFull;
  bool overwrite = false;
  bool resume = true;  ///< go on from what an earlier attempt at the same output has left
  GatherMode gather = GatherMode::kAuto;
};

/// Where scores come from if the catalog has no exact statistics, and they are needed.
enum class AnalyzeMode {
  kAuto,   ///< as kProbe
  kFull,   ///< analyze first, charged to the merge's budget
  kProbe,  ///< read samples, charged to the budget
  kNone,   ///< nowhere: an error
};

struct MergeOptions {
  MergeInputs inputs;
  MergeTarget target;
  PlanOptions plan;
  AnalyzeMode analyze = AnalyzeMode::kAuto;
  bool allow_empty = false;  ///< a budget too small to read anything gives a copy of the base
  ExecLimits limits;
  std::vector<std::string> command_line;  ///< for meta.json
  PublishHook publish_hook;               ///< for tests
};

/// What one rank read before the merge: fingerprints, probes, analysis.
struct PlanningIo {
  uint64_t expert_bytes = 0;
  uint64_t base_bytes = 0;
};

/// A plan with what was needed to make it; `warnings` are for people.
struct PlannedMerge {
  Plan plan;
  std::string plan_text;  ///< of plan.json
  std::string plan_hash;
  std::vector<PlanningIo> read;  ///< by rank
  double seconds = 0;
  std::vector<std::string> warnings;
};

struct MergeOutcome {
  std::string run_id;
  std::string run_directory;  ///< under the runs directory as it was given
  std::string plan_id;
  Manifest manifest;
  double plan_seconds = 0;
  double exec_seconds = 0;
  DiskTraits input_disk;                 ///< where the base is, as rank 0 sees it
  DiskTraits output_disk;                ///< likewise
  bool gathered_by_root = false;         ///< with several ranks: rank 0 wrote for all
  std::vector<std::string> blind_hosts;  ///< that do not see the output's directory, if known
  std::vector<SliceReport> ranks;        ///< what each did; without its parts
  std::vector<std::string> warnings;
};

/// Plans only: reads headers and fingerprints, and takes statistics as a merge would; writes
/// nothing but the catalog's rows. Collective; the plan is rank 0's (elsewhere it is empty), an
/// error is everyone's.
Result<PlannedMerge> PlanMerge(FileSystem& files, Communicator& communicator,
                               const MergeOptions& options);

/// What budgets of so many percent of the expert bytes would give, from the catalog's statistics
/// alone: no weights are read. kUsage if the experts have not been analyzed. Not collective.
Result<std::vector<SweepPoint>> SweepMerge(FileSystem& files, const MergeOptions& options,
                                           const std::vector<double>& percents);

/// The whole merge. Collective: every rank calls it with the same options; the outcome is rank 0's
/// (elsewhere it is empty), an error is everyone's. On an error there is no output directory and no
/// run folder; a staging directory stays if something in it is finished, and the error is not that
/// of an input. A sparse output is recorded as a run, but is no model.
Result<MergeOutcome> RunMerge(FileSystem& files, Communicator& communicator,
                              const MergeOptions& options);

struct ReplayOptions {
  std::string run;  ///< a run id, or a run folder
  std::string catalog;
  MergeInputs inputs;  ///< paths to take instead of the registered ones; may be empty
  MergeTarget target;  ///< its form is that of the run
  ExecLimits limits;
  std::vector<std::string> command_line;
};

/// Executes a stored plan again. The inputs must have the plan's fingerprints; every hash of the
/// new output is compared with the stored manifest's before it is published (kVerification if one
/// differs). Collective, as RunMerge.
Result<MergeOutcome> RunReplay(FileSystem& files, Communicator& communicator,
                               const ReplayOptions& options);

}  // namespace mergepipe
