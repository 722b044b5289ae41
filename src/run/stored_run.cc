#include "run/stored_run.h"

#include <algorithm>

#include "mergepipe/base/nearest_name.h"
#include "mergepipe/base/text.h"
#include "mergepipe/manifest/manifest_codec.h"
#include "mergepipe/manifest/run_folder.h"
#include "mergepipe/plan/plan_codec.h"

namespace mergepipe {
namespace {

Result<bool> HasPlan(FileSystem& files, const std::string& directory) {
  return files.Exists(JoinPath(directory, kPlanName));
}

// The run that made the output directory `run`; otherwise `run` itself.
Result<std::string> RunOfOutput(FileSystem& files, const std::string& run) {
  const std::string path = JoinPath(run, kManifestName);
  MERGEPIPE_ASSIGN_OR_RETURN(const bool is_output, files.Exists(path));
  if (!is_output) return run;
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(files, path, kMaxRecordBytes));
  MERGEPIPE_ASSIGN_OR_RETURN(const Manifest manifest, ParseManifest(text, path));
  return manifest.run_id;
}

bool SameTensor(const ManifestTensor& made, const PlannedTensor& planned) {
  return made.name == planned.name && made.dtype == planned.out_dtype &&
         made.shape == planned.shape;
}

// The hash that a manifest states shows that it means this plan, not that it is a record of it.
bool BelongsTo(const Manifest& manifest, const Plan& plan) {
  return manifest.plan_hash == PlanHash(plan) && manifest.base == plan.base &&
         manifest.experts == plan.experts && manifest.block_size == plan.options.block_size &&
         std::equal(manifest.tensors.begin(), manifest.tensors.end(), plan.tensors.begin(),
                    plan.tensors.end(), SameTensor);
}

}  // namespace

Result<std::string> FindRunFolder(FileSystem& files, Catalog* catalog,
                                  const std::string& runs_directory, const std::string& argument) {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool is_folder, HasPlan(files, argument));
  if (is_folder) return argument;
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string run, RunOfOutput(files, argument));
  std::vector<std::string> ids;
  if (catalog != nullptr) {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto record, catalog->FindRun(run));
    if (record) {
      MERGEPIPE_ASSIGN_OR_RETURN(const bool there, HasPlan(files, record->run_directory));
      if (there) return record->run_directory;
    }
    MERGEPIPE_ASSIGN_OR_RETURN(ids, catalog->RunIds());
  }
  const std::string in_runs = JoinPath(runs_directory, run);
  MERGEPIPE_ASSIGN_OR_RETURN(const bool there, HasPlan(files, in_runs));
  if (there) return in_runs;
  const auto nearest = NearestName(run, ids);
  return Fail(ErrorKind::kBadInput, run, "is neither a known run nor a run folder or output",
              nearest ? "did you mean " + Quote(*nearest) + "?"
                      : "give a run id, its folder, or the output (see --runs-dir and --db)");
}

Result<StoredRun> ReadRunFolder(FileSystem& files, const std::string& directory) {
  StoredRun stored;
  stored.directory = directory;
  const std::string plan_path = JoinPath(stored.directory, kPlanName);
  const std::string manifest_path = JoinPath(stored.directory, kManifestName);
  MERGEPIPE_ASSIGN_OR_RETURN(stored.plan_text, ReadSmallFile(files, plan_path, kMaxRecordBytes));
  MERGEPIPE_ASSIGN_OR_RETURN(stored.plan, ParsePlan(stored.plan_text, plan_path));
  MERGEPIPE_ASSIGN_OR_RETURN(stored.manifest_text,
                             ReadSmallFile(files, manifest_path, kMaxRecordBytes));
  MERGEPIPE_ASSIGN_OR_RETURN(stored.manifest, ParseManifest(stored.manifest_text, manifest_path));
  if (!BelongsTo(stored.manifest, stored.plan)) {
    return Fail(ErrorKind::kVerification, manifest_path,
                "belongs to another plan than the plan.json beside it",
                "the run folder was changed since it was written");
  }
  return stored;
}

Result<StoredRun> LoadRun(FileSystem& files, const RecordPlaces& places, const std::string& run) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto catalog, Catalog::OpenIfExists(places.catalog));
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string directory,
                             FindRunFolder(files, catalog.get(), places.runs_directory, run));
  return ReadRunFolder(files, directory);
}

}  // namespace mergepipe
