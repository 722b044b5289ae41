#include <set>

#include "mergepipe/manifest/manifest_codec.h"
#include "mergepipe/manifest/run_folder.h"
#include "mergepipe/plan/plan_codec.h"
#include "mergepipe/run/records.h"
#include "run/block_hashes.h"
#include "run/stored_run.h"
#include "run/verify_weights.h"

namespace mergepipe {
namespace {

Status CheckSideFile(FileSystem& files, const std::string& directory, const ManifestFile& expected,
                     ProblemList& problems) {
  const std::string path = JoinPath(directory, expected.name);
  const auto file = files.OpenForReading(path);
  if (!file) {
    problems.Add(file.error());
    return {};
  }
  bool same = (*file)->size() == expected.size;
  if (same) {
    MERGEPIPE_ASSIGN_OR_RETURN(const Hash128 hash, HashRange(**file, 0, expected.size));
    same = hash == expected.hash;
  }
  if (!same) problems.Add(path, "is not what the manifest states", kVerifyRemedy);
  return {};
}

// Names in the directory that the manifest does not know.
Status NoteStrangers(FileSystem& files, const std::string& directory, const Manifest& manifest,
                     VerifyOutcome& outcome) {
  std::set<std::string> known = {kManifestName};
  for (const auto* list : {&manifest.files, &manifest.side_files}) {
    for (const ManifestFile& file : *list) known.insert(file.name.substr(0, file.name.find('/')));
  }
  MERGEPIPE_ASSIGN_OR_RETURN(const auto entries, files.List(directory));
  for (const DirectoryEntry& entry : entries) {
    if (!known.contains(entry.name))
      outcome.notes.push_back(JoinPath(directory, entry.name) + " is not in the manifest");
  }
  return {};
}

// The run folder's records: the same manifest, and the plan that it names.
Status CheckRunFolder(FileSystem& files, const std::string& folder, const Manifest& manifest,
                      const std::string& manifest_text, ProblemList& problems) {
  const std::string plan_path = JoinPath(folder, kPlanName);
  const std::string manifest_path = JoinPath(folder, kManifestName);
  const auto stored = ReadSmallFile(files, manifest_path, kMaxRecordBytes);
  if (!stored) {
    problems.Add(stored.error());
  } else if (*stored != manifest_text) {
    problems.Add(manifest_path, "is not the manifest of the output", "one of the two was changed");
  }
  const auto plan_text = ReadSmallFile(files, plan_path, kMaxRecordBytes);
  if (!plan_text) {
    problems.Add(plan_text.error());
    return {};
  }
  const auto plan = ParsePlan(*plan_text, plan_path);
  if (!plan) {
    problems.Add(plan.error());
  } else if (PlanHash(*plan) != manifest.plan_hash) {
    problems.Add(plan_path, "is not the plan of this output", "the run folder was changed");
  }
  return {};
}

Status CheckRecords(FileSystem& files, const RecordPlaces& places, const Manifest& manifest,
                    const std::string& manifest_text, ProblemList& problems,
                    VerifyOutcome& outcome) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto catalog, Catalog::OpenIfExists(places.catalog));
  bool run_known = false;
  if (catalog) {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto run, catalog->FindRun(manifest.run_id));
    run_known = run.has_value();
    if (!run) {
      outcome.notes.push_back("the catalog " + places.catalog + " does not know run " +
                              manifest.run_id);
    } else if (run->manifest_hash != ManifestHash(manifest) ||
               run->plan_hash != manifest.plan_hash) {
      problems.Add(places.catalog,
                   "has other hashes for run " + manifest.run_id + " than the manifest",
                   "one of the two was changed");
    }
  } else {
    outcome.notes.push_back("there is no catalog " + places.catalog + " to compare with");
  }
  const auto folder = FindRunFolder(files, catalog.get(), places.runs_directory, manifest.run_id);
  if (!folder && run_known) {
    problems.Add("run " + manifest.run_id,
                 "is in the catalog, but its folder is gone or has no plan.json",
                 "restore the run folder");
    return {};
  }
  if (!folder) {
    outcome.notes.push_back("the run folder of " + manifest.run_id +
                            " was not found: the plan is not checked");
    return {};
  }
  return CheckRunFolder(files, *folder, manifest, manifest_text, problems);
}

Result<std::string> ReadManifestText(FileSystem& files, const std::string& directory) {
  MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, files.Stat(directory));
  const std::string path = JoinPath(directory, kManifestName);
  MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files.Exists(path));
  // A run folder has a plan, and so has a sparse output.
  MERGEPIPE_ASSIGN_OR_RETURN(const bool has_plan, files.Exists(JoinPath(directory, kPlanName)));
  MERGEPIPE_ASSIGN_OR_RETURN(const bool is_sparse, files.Exists(JoinPath(directory, kSparseName)));
  if (info.kind != FileKind::kDirectory || !there || (has_plan && !is_sparse)) {
    return Fail(ErrorKind::kBadInput, directory,
                "is not an output of mergepipe (it has no manifest.json, or is a run folder, or a "
                "sparse output without its sparse.safetensors)",
                "give the directory that a merge wrote");
  }
  return ReadSmallFile(files, path, kMaxRecordBytes);
}

Status CheckTheRest(FileSystem& files, const RecordPlaces& places, const std::string& directory,
                    const Manifest& manifest, const std::string& manifest_text,
                    ProblemList& problems, VerifyOutcome& outcome) {
  for (const ManifestFile& file : manifest.side_files) {
    MERGEPIPE_RETURN_IF_ERROR(CheckSideFile(files, directory, file, problems));
    outcome.bytes += file.size;
  }
  MERGEPIPE_RETURN_IF_ERROR(NoteStrangers(files, directory, manifest, outcome));
  if (manifest.output == OutputForm::kSparse) {  // it is its own run folder
    MERGEPIPE_RETURN_IF_ERROR(CheckRunFolder(files, directory, manifest, manifest_text, problems));
  }
  MERGEPIPE_RETURN_IF_ERROR(
      CheckRecords(files, places, manifest, manifest_text, problems, outcome));
  outcome.run_id = manifest.run_id;
  outcome.files = manifest.files.size() + manifest.side_files.size();
  outcome.tensors = manifest.tensors.size();
  for (const ManifestFile& file : manifest.files) outcome.bytes += file.size;
  return {};
}

}  // namespace

Result<VerifyOutcome> VerifyOutput(FileSystem& files, Communicator& communicator,
                                   const RecordPlaces& places, const std::string& directory,
                                   int threads) {
  Result<std::string> text = std::string();
  if (communicator.is_root()) text = ReadManifestText(files, directory);
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(text ? Status() : Status(tl::unexpected(text.error()))));
  communicator.Broadcast(*text);
  const auto manifest = ParseManifest(*text, JoinPath(directory, kManifestName));
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(manifest ? Status() : Status(tl::unexpected(manifest.error()))));

  ProblemList problems;
  const WeightFiles weights = FindWeights(files, *manifest, directory, problems);
  const auto share = HashBlocks(files, ShareOf(weights.jobs, communicator), threads);
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(share ? Status() : Status(tl::unexpected(share.error()))));
  const std::vector<std::string> shares = communicator.Gather(*share);

  VerifyOutcome outcome;
  Status status;
  if (communicator.is_root()) {
    const auto hashes = JoinHashes(shares);
    if (!hashes || hashes->size() != weights.jobs.size()) {
      status = Fail(ErrorKind::kIo, directory, "does not look the same to all ranks",
                    "use a filesystem that all hosts share");
    } else {
      CompareWeights(*manifest, weights, *hashes, problems);
      status = CheckTheRest(files, places, directory, *manifest, *text, problems, outcome);
      if (status) status = problems.ToStatus(ErrorKind::kVerification);
    }
  }
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(status));
  return outcome;
}

}  // namespace mergepipe
