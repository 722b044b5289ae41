#include "mergepipe/run/materialize.h"

#include <algorithm>
#include <chrono>

#include "mergepipe/plan/plan_codec.h"
#include "mergepipe/run/records.h"
#include "run/execute.h"
#include "run/staging.h"
#include "run/stored_inputs.h"

namespace mergepipe {
namespace {

Error NotSparse(const std::string& argument) {
  return Error(ErrorKind::kBadInput, argument,
               std::string("is not a sparse output (it has no ") + kSparseName + ")",
               "give the directory that `--output sparse` wrote, or the id of its run");
}

// The directory that `argument` names by itself, or as a run's id.
Result<std::string> FindSparse(FileSystem& files, const std::string& catalog_path,
                               const std::string& argument) {
  std::string directory = argument;
  MERGEPIPE_ASSIGN_OR_RETURN(const bool on_disk, files.Exists(argument));
  if (!on_disk) {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto catalog, Catalog::OpenIfExists(catalog_path));
    std::optional<RunRecord> run;
    if (catalog) {
      MERGEPIPE_ASSIGN_OR_RETURN(run, catalog->FindRun(argument));
    }
    if (!run) {
      return Fail(ErrorKind::kBadInput, argument,
                  "is neither a directory nor a run that the catalog knows",
                  "give the directory that `--output sparse` wrote, or the id of its run (see "
                  "--db)");
    }
    directory = run->output_path;
  }
  MERGEPIPE_ASSIGN_OR_RETURN(const bool has_blocks, files.Exists(JoinPath(directory, kSparseName)));
  if (!has_blocks) return tl::unexpected(NotSparse(directory));
  return directory;
}

bool Fits(const ManifestTensor& made, const PlannedTensor& planned) {
  if (made.name != planned.name || made.dtype != planned.out_dtype || made.shape != planned.shape)
    return false;
  std::vector<BlockSet> read(planned.selected.size(), BlockSet(made.blocks));
  for (const ManifestSource& source : made.sources) read[source.expert].Unite(source.blocks);
  return read == planned.selected;
}

// Both records come from a file, and each was checked by itself.
Status CheckRecords(const StoredRun& run, const std::string& directory) {
  const Manifest& manifest = run.manifest;
  if (manifest.output != OutputForm::kSparse) return tl::unexpected(NotSparse(directory));
  const bool fits = manifest.experts.size() == run.plan.experts.size() &&
                    manifest.block_size == run.plan.options.block_size &&
                    manifest.base.fingerprint == run.plan.base.fingerprint &&
                    std::equal(manifest.tensors.begin(), manifest.tensors.end(),
                               run.plan.tensors.begin(), run.plan.tensors.end(), Fits);
  if (fits) return {};
  return Fail(ErrorKind::kBadInput, directory, "has a manifest that does not belong to its plan",
              "restore the sparse output, or merge again");
}

Status CheckBaseFits(const Plan& plan, const ModelLayout& base) {
  const auto fits = [](const PlannedTensor& planned, const TensorInfo& tensor) {
    return planned.name == tensor.name && planned.dtype == tensor.dtype &&
           planned.shape == tensor.shape;
  };
  if (std::equal(plan.tensors.begin(), plan.tensors.end(), base.tensors.begin(), base.tensors.end(),
                 fits))
    return {};
  return Fail(ErrorKind::kBadInput, base.path, "does not have the tensors of the plan",
              "the sparse output's plan.json was changed; restore it, or merge again");
}

Result<SparseOutput> OpenSparse(FileSystem& files, const std::string& directory,
                                Manifest manifest) {
  SparseOutput sparse;
  sparse.directory = directory;
  MERGEPIPE_ASSIGN_OR_RETURN(sparse.layout, SparseLayoutOf(manifest));
  const std::string path = JoinPath(directory, kSparseName);
  MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, files.Stat(path));
  sparse.file = {AbsolutePath(path), info.size, info.mtime_ns, 0};
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string head, ReadSparseHead(files, path, sparse.layout));
  if (head != sparse.layout.files[0].header) {
    return Fail(ErrorKind::kBadInput, path, "its header or indexes are not those of its manifest",
                "the file is damaged; restore it, or merge again");
  }
  sparse.manifest = std::move(manifest);
  return sparse;
}

Result<ExecuteRequest> PrepareMaterialize(FileSystem& files, const MaterializeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  ExecuteRequest request;
  request.started_at = TimestampUtc();
  MERGEPIPE_RETURN_IF_ERROR(Staging::CheckOptions(files, options.target));
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string directory,
                             FindSparse(files, options.catalog, options.sparse));
  MERGEPIPE_ASSIGN_OR_RETURN(
      StoredRun run, LoadRun(files, {options.catalog, options.target.runs_directory}, directory));
  MERGEPIPE_RETURN_IF_ERROR(CheckRecords(run, directory));
  MERGEPIPE_ASSIGN_OR_RETURN(request.sparse, OpenSparse(files, directory, std::move(run.manifest)));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto catalog, Catalog::OpenIfExists(options.catalog));
  ModelResolver resolver(files, catalog.get());
  MERGEPIPE_ASSIGN_OR_RETURN(request.inputs.base,
                             FindPlannedModel(files, resolver, catalog.get(), run.plan.base,
                                              options.base, "--base", UINT64_MAX));
  const ModelLayout& base = request.inputs.base.record.layout;
  MERGEPIPE_RETURN_IF_ERROR(CheckBaseFits(run.plan, base));
  MERGEPIPE_RETURN_IF_ERROR(
      Staging::CheckTarget(files, options.target, {base.path, AbsolutePath(directory)}));
  request.planned.plan_hash = PlanHash(run.plan);
  request.planned.plan = std::move(run.plan);
  request.planned.plan_text = std::move(run.plan_text);
  request.planned.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  request.target = options.target;
  request.catalog = options.catalog;
  request.command_line = options.command_line;
  return request;
}

}  // namespace

Result<MergeOutcome> RunMaterialize(FileSystem& files, Communicator& communicator,
                                    const MaterializeOptions& options) {
  return ExecuteOnAll(files, communicator, options.target.gather, options.limits,
                      [&] { return PrepareMaterialize(files, options); });
}

}  // namespace mergepipe
