#include "run/execute.h"

#include <algorithm>
#include <chrono>

#include "mergepipe/base/log.h"
#include "mergepipe/manifest/manifest_codec.h"
#include "mergepipe/manifest/run_folder.h"
#include "mergepipe/plan/plan_codec.h"
#include "mergepipe/run/build.h"
#include "mergepipe/strategy/strategy.h"
#include "run/earlier_work.h"
#include "run/expected.h"
#include "run/gather.h"
#include "run/host_inputs.h"
#include "run/slices.h"
#include "run/staging.h"

namespace mergepipe {
namespace {

// What rank 0 holds between the phases.
struct RootState {
  const ExecuteRequest& request;
  OutputLayout layout;
  std::unique_ptr<Staging> staging;
  EarlierWork earlier;
  std::unique_ptr<RunFolder> folder;
  Manifest manifest;  // grows from the side files on
  std::vector<std::string> slices;
  DiskTraits input_disk;
  DiskTraits output_disk;
};

std::string ModelIdOf(const MergeTarget& target) {
  return target.model_id.empty() ? IdFromPath(AbsolutePath(target.directory)) : target.model_id;
}

void StartManifest(const ExecuteRequest& request, Manifest& manifest) {
  const Plan& plan = request.planned.plan;
  manifest.model_id = ModelIdOf(request.target);
  manifest.plan_hash = request.planned.plan_hash;
  manifest.output = request.target.form;
  manifest.block_size = plan.options.block_size;
  manifest.base = plan.base;
  manifest.experts = plan.experts;
  manifest.dropped = plan.dropped;
  manifest.budget_bytes = plan.options.budget_bytes;
  manifest.planned_expert_bytes = plan.PlannedBytes();
  manifest.bound = plan.bound;
}

Result<OutputLayout> LayOut(const ExecuteRequest& request) {
  const Plan& plan = request.planned.plan;
  if (request.target.form == OutputForm::kSparse) return SparseLayoutOf(plan);
  return ComputeOutputLayout(request.inputs.base.record.layout, plan.options.out_dtype);
}

// All files but the weights and the manifest.
Status AddSideFiles(FileSystem& files, RootState& state) {
  const ExecuteRequest& request = state.request;
  const ModelLayout& base = request.inputs.base.record.layout;
  Staging& staging = *state.staging;
  if (request.sparse) {
    MERGEPIPE_RETURN_IF_ERROR(TakeOverSideFiles(files, *request.sparse, staging, state.manifest));
  } else {
    MERGEPIPE_RETURN_IF_ERROR(CopySideFiles(files, base, request.planned.plan.options.out_dtype,
                                            staging, state.manifest));
  }
  if (request.target.form == OutputForm::kSparse)
    return AddPlanFile(request.planned.plan_text, staging, state.manifest);
  return AddIndex(files, base, state.layout, staging, state.manifest);
}

void Update(const ModelLayout& model, Hasher& hasher) {
  for (const ModelFile& file : model.files) {
    hasher.Update(file.name);
    hasher.Update(file.info.size);
    hasher.Update(static_cast<uint64_t>(file.info.mtime_ns));
    hasher.Update(file.info.inode);
  }
}

// Of what decides the bytes of the weights. The inputs are known by their sizes and times: what a
// fingerprint's samples miss must not mix two states of a file.
Hash128 IdentityOf(const ExecuteRequest& request) {
  Hasher hasher;
  hasher.Update(request.planned.plan_hash);
  hasher.Update(static_cast<uint64_t>(request.target.form));
  Update(request.inputs.base.record.layout, hasher);
  for (const ResolvedModel& expert : request.inputs.experts) Update(expert.record.layout, hasher);
  if (request.sparse) {
    hasher.Update(request.sparse->file.size);
    hasher.Update(static_cast<uint64_t>(request.sparse->file.mtime_ns));
  }
  return hasher.Finish();
}

std::string DoneOf(const EarlierWork& earlier, const Plan& plan, OutputForm form) {
  uint64_t done = 0;
  for (const PartReport& report : earlier.reports) done += report.block_hashes.size();
  uint64_t all = 0;
  for (const PlannedTensor& tensor : plan.tensors) all += tensor.Blocks(plan.options.block_size);
  if (form == OutputForm::kSparse) all = plan.TouchedBlocks();
  return std::to_string(done) + " of " + std::to_string(all) + " blocks";
}

Status TakeEarlierWork(RootState& state) {
  const Plan& plan = state.request.planned.plan;
  JournalContents contents = state.staging->TakeEarlier();
  if (state.staging->attempt() == 1) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(const StrategyRow* strategy, FindStrategy(plan.options.strategy.name));
  const bool merges = !state.request.sparse;
  state.earlier = SettleEarlierWork(plan, state.request.target.form, std::move(contents),
                                    merges && strategy->rounds(plan.options.strategy) > 0,
                                    merges ? plan.experts.size() : 0);
  LogNote("going on from an earlier attempt: " +
          DoneOf(state.earlier, plan, state.request.target.form) + " are done");
  return {};
}

// Everything that can fail before weights are read fails here, not after the hours of a merge.
Status Prepare(FileSystem& files, RootState& state) {
  const ExecuteRequest& request = state.request;
  MERGEPIPE_ASSIGN_OR_RETURN(state.layout, LayOut(request));
  MERGEPIPE_ASSIGN_OR_RETURN(state.staging, Staging::Create(files, request.target,
                                                            {PlanIdOf(request.planned.plan_hash),
                                                             IdentityOf(request), state.layout}));
  MERGEPIPE_RETURN_IF_ERROR(TakeEarlierWork(state));
  StartManifest(request, state.manifest);
  MERGEPIPE_RETURN_IF_ERROR(AddSideFiles(files, state));
  if (request.expected)
    MERGEPIPE_RETURN_IF_ERROR(CheckSideFilesExpected(state.manifest, *request.expected));
  MERGEPIPE_ASSIGN_OR_RETURN(RunFolder folder,
                             RunFolder::Create(files, request.target.runs_directory,
                                               RunTimestampUtc() + "_" + state.manifest.model_id));
  state.folder = std::make_unique<RunFolder>(std::move(folder));
  state.manifest.run_id = state.folder->run_id();
  MERGEPIPE_RETURN_IF_ERROR(state.folder->Write(kPlanName, request.planned.plan_text));
  return {};
}

Status CutSlices(FileSystem& files, const Gathering& gathering, int ranks, RootState& state) {
  const ExecuteRequest& request = state.request;
  const std::string& staging = state.staging->directory();
  MERGEPIPE_ASSIGN_OR_RETURN(state.output_disk, files.TraitsOf(staging));
  MERGEPIPE_ASSIGN_OR_RETURN(state.input_disk,
                             files.TraitsOf(request.inputs.base.record.layout.path));
  const SliceContext context{.inputs = request.inputs,
                             .layout = state.layout,
                             .staging = staging,
                             .form = request.target.form,
                             .gather_to_root = gathering.to_root,
                             .copies_known_blocks = state.output_disk.copies && !gathering.to_root,
                             .sparse = request.sparse ? &*request.sparse : nullptr,
                             .earlier = state.earlier.any() ? &state.earlier : nullptr,
                             .journal_directory = state.staging->journal_directory(),
                             .attempt = state.staging->attempt(),
                             .identity = state.staging->identity(),
                             .statistics = request.statistics.get()};
  MERGEPIPE_ASSIGN_OR_RETURN(state.slices, MakeSlices(request.planned.plan, context, ranks));
  return {};
}

// `wanted`, or that with a part of the fingerprint and a number, as no other path has it.
Result<std::string> FreeId(Catalog& catalog, const std::string& wanted, const ModelRecord& model) {
  const std::string with_fingerprint = wanted + "-" + model.fingerprint.ToHex().substr(0, 8);
  std::string id = wanted;
  for (int n = 1;; ++n) {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto other, catalog.FindModel(id));
    if (!other || other->layout.path == model.layout.path) return id;
    id = n == 1 ? with_fingerprint : with_fingerprint + "-" + std::to_string(n);
  }
}

// The output's own registration, so that it can be a base or an expert by its id.
Status RegisterOutput(FileSystem& files, Catalog& catalog, const MergeTarget& target,
                      std::string& model_id) {
  ModelResolver resolver(files, &catalog);
  ResolvedModel output;
  const std::string path = AbsolutePath(target.directory);
  MERGEPIPE_ASSIGN_OR_RETURN(output.record.layout, ReadModel(files, path));
  output.changed = true;
  output.record.registered_at = TimestampUtc();
  MERGEPIPE_RETURN_IF_ERROR(resolver.Fingerprint(files, output));
  MERGEPIPE_ASSIGN_OR_RETURN(model_id, FreeId(catalog, model_id, output.record));
  output.record.id = model_id;
  return catalog.PutModels({output.record});
}

Status RecordInCatalog(FileSystem& files, const ExecuteRequest& request, const Manifest& manifest,
                       const RunFolder& folder, std::vector<std::string>& warnings) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto catalog, Catalog::OpenOrCreate(request.catalog));
  MERGEPIPE_RETURN_IF_ERROR(
      catalog->PutRun({folder.run_id(), PlanIdOf(manifest.plan_hash), manifest.plan_hash,
                       manifest.model_id, AbsolutePath(request.target.directory),
                       AbsolutePath(folder.path()), ManifestHash(manifest), TimestampUtc()}));
  if (manifest.output == OutputForm::kSparse) return {};  // it is no model
  std::string model_id = manifest.model_id;
  MERGEPIPE_RETURN_IF_ERROR(RegisterOutput(files, *catalog, request.target, model_id));
  if (model_id != manifest.model_id) {
    warnings.push_back("'" + manifest.model_id +
                       "' is another model in the catalog: the output is registered as '" +
                       model_id + "'");
  }
  return {};
}

void WarnOfIntegers(const Manifest& manifest, std::vector<std::string>& warnings) {
  for (const ManifestTensor& tensor : manifest.tensors) {
    for (const ManifestSource& source : tensor.sources) {
      if (!source.differs) continue;
      warnings.push_back("expert '" + manifest.experts[source.expert].id +
                         "' differs from the base in integer tensor '" + tensor.name +
                         "'; the base's is kept");
    }
  }
}

Result<std::vector<SliceReport>> ParseReports(const std::vector<std::string>& report_bytes) {
  std::vector<SliceReport> reports;
  for (const std::string& bytes : report_bytes) {
    MERGEPIPE_ASSIGN_OR_RETURN(SliceReport report, ParseReport(bytes));
    reports.push_back(std::move(report));
  }
  return reports;
}

// What was read before the merge: fingerprints, probes, an analysis.
void AddPlanningIo(const std::vector<PlanningIo>& read, Manifest& manifest) {
  for (size_t rank = 0; rank < read.size(); ++rank) {
    IoCounts io;
    io.probe_bytes_read = read[rank].expert_bytes;
    io.base_bytes_read = read[rank].base_bytes;
    manifest.io += io;
    manifest.by_rank[rank].io += io;
  }
}

// Everything that the record holds beyond the side files.
Status CompleteManifest(RootState& state, const std::vector<SliceReport>& reports) {
  const ExecuteRequest& request = state.request;
  Manifest& manifest = state.manifest;
  const MovedBytes& moved = state.earlier.moved;
  const EarlierAttempts earlier{
      state.earlier.reports,
      {moved.compared, moved.merged, moved.base, moved.written, moved.copied},
      state.earlier.lost_bytes};
  MERGEPIPE_RETURN_IF_ERROR(RecordReports(request.planned.plan, state.layout, reports, manifest,
                                          request.sparse ? &request.sparse->manifest : nullptr,
                                          earlier));
  AddPlanningIo(request.planned.read, manifest);
  return request.expected ? CheckExpected(manifest, *request.expected) : Status();
}

// The manifest goes last into the output, and the output into place. The record is whole before:
// if this is killed behind it, the catalog can be completed from it.
Status PublishOutput(FileSystem& files, RootState& state, const RunMeta& meta) {
  const ExecuteRequest& request = state.request;
  const std::string manifest_text = SerializeManifest(state.manifest);
  MERGEPIPE_RETURN_IF_ERROR(state.folder->Write(kMetaName, SerializeMeta(meta)));
  MERGEPIPE_RETURN_IF_ERROR(state.folder->Write(kManifestName, manifest_text));
  MERGEPIPE_RETURN_IF_ERROR(state.folder->Sync());
  MERGEPIPE_RETURN_IF_ERROR(state.staging->AddFile(kManifestName, manifest_text));
  // Again, as hours may have passed.
  MERGEPIPE_RETURN_IF_ERROR(Staging::CheckTarget(files, request.target, request.inputs.Paths()));
  const Status published = state.staging->Publish(request.target.overwrite, request.publish_hook);
  if (state.staging->published()) state.folder->Keep();
  return published;
}

// Everything after the last weight is written.
Status Finish(FileSystem& files, RootState& state, const std::vector<std::string>& report_bytes,
              std::chrono::steady_clock::time_point start, MergeOutcome& outcome) {
  const ExecuteRequest& request = state.request;
  MERGEPIPE_ASSIGN_OR_RETURN(std::vector<SliceReport> reports, ParseReports(report_bytes));
  MERGEPIPE_RETURN_IF_ERROR(CompleteManifest(state, reports));
  for (SliceReport& report : reports) report.parts.clear();  // they are in the manifest
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const RunMeta meta{state.folder->run_id(),
                     request.command_line,
                     AbsolutePath(request.target.directory),
                     request.started_at,
                     TimestampUtc(),
                     0,
                     request.planned.seconds,
                     seconds(),
                     reports,
                     ThisBuild()};
  MERGEPIPE_RETURN_IF_ERROR(PublishOutput(files, state, meta));

  outcome.run_id = state.folder->run_id();
  outcome.run_directory = state.folder->path();
  outcome.plan_id = PlanIdOf(state.manifest.plan_hash);
  outcome.input_disk = state.input_disk;
  outcome.output_disk = state.output_disk;
  outcome.plan_seconds = request.planned.seconds;
  outcome.exec_seconds = seconds();
  outcome.warnings = request.planned.warnings;
  WarnOfIntegers(state.manifest, outcome.warnings);
  for (const std::string& leftover : state.staging->leftovers()) {
    outcome.warnings.push_back("is of no more use, but could not be removed: " + leftover);
  }
  // The output is complete and in place: a failure is told, and does not undo it.
  const Status recorded =
      RecordInCatalog(files, request, state.manifest, *state.folder, outcome.warnings);
  if (!recorded) {
    outcome.warnings.push_back("the output is complete, but the catalog could not record it: " +
                               recorded.error().ToString() + "; `mergepipe recover` does it later");
  }
  outcome.ranks = std::move(reports);
  outcome.manifest = std::move(state.manifest);
  return {};
}

// `root` is rank 0's and null elsewhere.
Result<MergeOutcome> ExecutePlan(FileSystem& files, Communicator& communicator, GatherMode gather,
                                 const ExecLimits& limits, RootState* root) {
  const auto start = std::chrono::steady_clock::now();
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(root != nullptr ? Prepare(files, *root) : Status()));
  MERGEPIPE_ASSIGN_OR_RETURN(
      const Gathering gathering,
      DecideGathering(files, communicator, gather,
                      root != nullptr ? root->staging->directory() : std::string()));
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(
      root != nullptr ? CutSlices(files, gathering, communicator.size(), *root) : Status()));

  const Result<Slice> slice = ParseSlice(
      communicator.Scatter(root != nullptr ? std::move(root->slices) : std::vector<std::string>()));
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(slice ? Status() : Status(tl::unexpected(slice.error()))));
  MERGEPIPE_ASSIGN_OR_RETURN(const SliceReport report,
                             RunSlice(files, communicator, *slice, limits));
  const std::vector<std::string> reports = communicator.Gather(SerializeReport(report));
  MERGEPIPE_RETURN_IF_ERROR(
      CheckInputsUnchanged(files, communicator, root != nullptr ? &root->request.inputs : nullptr));

  MergeOutcome outcome;
  outcome.gathered_by_root = gathering.to_root;
  outcome.blind_hosts = gathering.blind_hosts;
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(
      root != nullptr ? Finish(files, *root, reports, start, outcome) : Status()));
  return outcome;
}

// Bytes of the budget that the plan leaves.
uint64_t RoomOf(const Plan& plan) {
  const auto budget = plan.options.budget_bytes;
  if (!budget) return UINT64_MAX;
  return *budget > plan.PlannedBytes() ? *budget - plan.PlannedBytes() : 0;
}

Status CheckHosts(FileSystem& files, Communicator& communicator, ExecuteRequest* request) {
  const auto compared =
      CheckInputsOnHosts(files, communicator, request != nullptr ? &request->inputs : nullptr,
                         request != nullptr ? RoomOf(request->planned.plan) : 0,
                         request != nullptr ? &request->planned.read : nullptr);
  if (compared && !*compared && request != nullptr) {
    request->planned.warnings.emplace_back(
        "the budget leaves no room to compare the inputs' bytes on the other hosts: only their "
        "sizes and times were");
  }
  return compared ? Status() : Status(tl::unexpected(compared.error()));
}

}  // namespace

Result<MergeOutcome> ExecuteOnAll(FileSystem& files, Communicator& communicator, GatherMode gather,
                                  const ExecLimits& limits,
                                  const std::function<Result<ExecuteRequest>()>& prepare) {
  std::optional<ExecuteRequest> request;
  Status status;
  if (communicator.is_root()) {
    auto prepared = prepare();
    if (prepared) {
      request = std::move(*prepared);
    } else {
      status = tl::unexpected(prepared.error());
    }
  }
  if (status && limits.Stopped()) status = tl::unexpected(InterruptedError());
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(status));
  MERGEPIPE_RETURN_IF_ERROR(CheckHosts(files, communicator, request ? &*request : nullptr));
  if (!request) return ExecutePlan(files, communicator, gather, limits, nullptr);
  RootState root{*request, {}, nullptr, {}, nullptr, {}, {}, {}, {}};
  Result<MergeOutcome> outcome = ExecutePlan(files, communicator, gather, limits, &root);
  if (!outcome && root.staging && root.staging->EndAttempt(outcome.error().kind())) {
    LogNote("what is finished is kept in " + root.staging->directory() +
            ": the same command goes on from there");
  }
  return outcome;
}

}  // namespace mergepipe
