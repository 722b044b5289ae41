#include "mergepipe/run/audit.h"

#include <algorithm>
#include <memory>
#include <random>
#include <set>

#include "mergepipe/base/text.h"
#include "mergepipe/strategy/strategy.h"
#include "run/audit_sample.h"
#include "run/block_hashes.h"
#include "run/discarding_file_system.h"
#include "run/slices.h"
#include "run/source_tables.h"
#include "run/stored_inputs.h"
#include "run/verify_weights.h"

namespace mergepipe {
namespace {

constexpr const char* kChanged = "is not what the run read: the file has changed";
constexpr const char* kChangedRemedy =
    "the output cannot be audited without the very files of the run; restore them";

// What rank 0 works with.
struct Audited {
  StoredRun run;
  ResolvedInputs inputs;
};

// Both records come from a file; each was checked by itself, and names the other's hash.
Status CheckRecordsFit(const Audited& audited) {
  const Plan& plan = audited.run.plan;
  const Manifest& manifest = audited.run.manifest;
  const auto fits = [&](const ManifestTensor& made, const PlannedTensor& planned) {
    return made.name == planned.name && made.shape == planned.shape &&
           made.dtype == planned.out_dtype &&
           made.blocks == planned.Blocks(plan.options.block_size);
  };
  if (manifest.block_size == plan.options.block_size &&
      manifest.experts.size() == plan.experts.size() &&
      std::equal(manifest.tensors.begin(), manifest.tensors.end(), plan.tensors.begin(),
                 plan.tensors.end(), fits))
    return {};
  return Fail(ErrorKind::kVerification, audited.run.directory,
              "has a manifest that does not belong to its plan",
              "the run folder was changed since it was written");
}

Result<Audited> FindAudited(FileSystem& files, const AuditOptions& options) {
  Audited audited;
  MERGEPIPE_ASSIGN_OR_RETURN(audited.run, LoadRun(files, options.places, options.directory));
  MERGEPIPE_RETURN_IF_ERROR(CheckRecordsFit(audited));
  MERGEPIPE_ASSIGN_OR_RETURN(audited.inputs, FindPlannedInputs(files, options.places.catalog,
                                                               options.inputs, audited.run.plan));
  return audited;
}

// --- The inputs: what the merge read, hashed again. ---

// Some blocks of one tensor of an input, and the hash over theirs that the manifest has.
struct ReadPart {
  std::string subject;
  size_t first_job = 0;
  Hash128 expected;
};

class ReadParts {
 public:
  explicit ReadParts(const Audited& audited) : audited_(audited) {
    AddModel(audited.inputs.base.record.layout);
    for (const ResolvedModel& expert : audited.inputs.experts) {
      AddModel(expert.record.layout);
      tensors_.push_back(IndexTensors(expert.record.layout));
    }
    for (size_t t = 0; t < audited.run.plan.tensors.size(); ++t) AddTensor(t);
  }

  const std::vector<BlockJob>& jobs() const { return jobs_; }
  const std::vector<ReadPart>& parts() const { return parts_; }

  Status Compare(const std::vector<Hash128>& hashes) const {
    ProblemList changed;
    for (size_t p = 0; p < parts_.size(); ++p) {
      const size_t end = p + 1 < parts_.size() ? parts_[p + 1].first_job : hashes.size();
      const std::vector<Hash128> blocks(
          hashes.begin() + static_cast<std::ptrdiff_t>(parts_[p].first_job),
          hashes.begin() + static_cast<std::ptrdiff_t>(end));
      if (TensorHash(blocks) != parts_[p].expected)
        changed.Add(parts_[p].subject, kChanged, kChangedRemedy);
    }
    return changed.ToStatus(ErrorKind::kBadInput);
  }

 private:
  void AddModel(const ModelLayout& layout) {
    std::vector<std::string>& paths = paths_.emplace_back();
    for (uint32_t i = 0; i < layout.files.size(); ++i) paths.push_back(layout.FilePath(i));
  }

  void AddTensor(size_t t) {
    const PlannedTensor& planned = audited_.run.plan.tensors[t];
    const ManifestTensor& made = audited_.run.manifest.tensors[t];
    const BlockSet of_base = audited_.run.manifest.output == OutputForm::kSparse
                                 ? made.Touched()
                                 : BlockSet::All(made.blocks);
    AddPart(0, audited_.inputs.base.record.layout.tensors[t], of_base, made.base_hash);
    for (const ManifestSource& source : made.sources) {
      if (source.blocks.Empty()) continue;  // an integer tensor, compared only
      const TensorInfo& tensor = *tensors_[source.expert].at(planned.sources[source.expert].name);
      AddPart(source.expert + size_t{1}, tensor, source.blocks, source.read_hash);
    }
  }

  // `model` 0 is the base.
  void AddPart(size_t model, const TensorInfo& tensor, const BlockSet& blocks,
               const Hash128& expected) {
    const std::string& path = paths_[model][tensor.file];
    parts_.push_back({path + ": tensor " + Quote(tensor.name), jobs_.size(), expected});
    const uint64_t block_bytes = audited_.run.manifest.block_size * DTypeSize(tensor.dtype);
    blocks.ForEachRun([&](BlockIndex begin, BlockIndex end) {
      for (BlockIndex b = begin; b < end; ++b) {
        const uint64_t at = b.value * block_bytes;
        jobs_.push_back({&path, tensor.offset + at, std::min(block_bytes, tensor.bytes() - at)});
      }
    });
  }

  const Audited& audited_;
  std::vector<std::vector<std::string>> paths_;  // by model, by file; the jobs point to them
  std::vector<TensorsByName> tensors_;           // by expert
  std::vector<BlockJob> jobs_;
  std::vector<ReadPart> parts_;
};

Status AuditInputs(FileSystem& files, Communicator& communicator, const Audited* audited,
                   int threads, AuditOutcome& outcome) {
  std::unique_ptr<ReadParts> parts;
  if (audited != nullptr) parts = std::make_unique<ReadParts>(*audited);
  MERGEPIPE_ASSIGN_OR_RETURN(
      const auto hashes,
      HashOnAll(files, communicator, parts ? parts->jobs() : std::vector<BlockJob>(), threads));
  Status status;
  if (parts) {
    status = parts->Compare(hashes);
    outcome.input_tensors = parts->parts().size();
    for (const BlockJob& job : parts->jobs()) outcome.input_bytes += job.size;
  }
  return communicator.Agree(status);
}

// --- The sample: blocks of the output, merged again. ---

// A name that no file has; what the engine writes below it is dropped.
std::string Discarded(const std::string& directory) {
  return JoinPath(AbsolutePath(directory), ".mergepipe-audit");
}

Result<std::vector<std::string>> SampleSlices(const Audited& audited, const AuditOptions& options,
                                              int ranks, AuditOutcome& outcome) {
  const Plan& plan = audited.run.plan;
  MERGEPIPE_ASSIGN_OR_RETURN(const StrategyRow* strategy, FindStrategy(plan.options.strategy.name));
  outcome.seed = options.seed ? *options.seed : std::random_device()();
  const auto ranges =
      ChooseSample(plan, audited.run.manifest.output, strategy->rounds(plan.options.strategy) > 0,
                   options.sample, outcome.seed);
  MERGEPIPE_ASSIGN_OR_RETURN(
      const OutputLayout layout,
      ComputeOutputLayout(audited.inputs.base.record.layout, plan.options.out_dtype));
  const SliceContext context{
      .inputs = audited.inputs, .layout = layout, .staging = Discarded(options.directory)};
  return MakeSlices(plan, context, DealRanges(ranges, ranks));
}

// A block that was made again, and its place in the output.
struct MadeBlock {
  uint32_t tensor = 0;
  uint64_t block = 0;
  Hash128 hash;
};

// The blocks that the output has, in the order of its tensors.
Result<std::vector<MadeBlock>> MadeBlocks(const Manifest& manifest,
                                          const std::vector<std::string>& reports) {
  std::vector<MadeBlock> made;
  for (const std::string& bytes : reports) {
    MERGEPIPE_ASSIGN_OR_RETURN(const SliceReport report, ParseReport(bytes));
    for (const PartReport& part : report.parts) {
      const BlockSet touched = manifest.tensors[part.tensor].Touched();
      for (uint64_t i = 0; i < part.block_hashes.size(); ++i) {
        const uint64_t block = part.begin + i;
        if (manifest.output == OutputForm::kFull || touched.Contains(BlockIndex(block)))
          made.push_back({part.tensor, block, part.block_hashes[i]});
      }
    }
  }
  return made;
}

// Of the touched blocks of a sparse output only these are stored, one after the other.
uint64_t PlaceInOutput(const Manifest& manifest, const MadeBlock& made) {
  if (manifest.output == OutputForm::kFull) return made.block;
  return manifest.tensors[made.tensor]
      .Touched()
      .Within(BlockIndex(0), BlockIndex(made.block))
      .Count();
}

Result<std::vector<BlockJob>> JobsOf(const Manifest& manifest, const WeightFiles& weights,
                                     const std::vector<MadeBlock>& made) {
  std::vector<BlockJob> jobs;
  for (const MadeBlock& block : made) {
    const uint64_t job = weights.first_job[block.tensor] + PlaceInOutput(manifest, block);
    if (job >= weights.first_job[block.tensor + 1]) {
      return Fail(ErrorKind::kVerification, "tensor " + Quote(manifest.tensors[block.tensor].name),
                  "is not there as the manifest describes it", kVerifyRemedy);
    }
    jobs.push_back(weights.jobs[job]);
  }
  return jobs;
}

Status CompareSample(const Manifest& manifest, const std::vector<MadeBlock>& made,
                     const std::vector<Hash128>& hashes, AuditOutcome& outcome) {
  ProblemList problems;
  std::set<uint32_t> tensors;
  for (size_t i = 0; i < made.size(); ++i) {
    tensors.insert(made[i].tensor);
    if (made[i].hash == hashes[i]) continue;
    problems.Add("tensor " + Quote(manifest.tensors[made[i].tensor].name) + ", block " +
                     std::to_string(made[i].block),
                 "is not what the plan gives from the inputs",
                 "the output and its record were changed together, or another build made it; do "
                 "not use it");
  }
  outcome.sampled_blocks = made.size();
  outcome.sampled_tensors = tensors.size();
  return problems.ToStatus(ErrorKind::kVerification);
}

// The reports of the ranks, on rank 0.
Result<std::vector<std::string>> MakeAgain(FileSystem& files, Communicator& communicator,
                                           const AuditOptions& options, const Audited* audited,
                                           AuditOutcome& outcome) {
  Result<std::vector<std::string>> slices = std::vector<std::string>();
  if (audited != nullptr) slices = SampleSlices(*audited, options, communicator.size(), outcome);
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(slices ? Status() : Status(tl::unexpected(slices.error()))));
  const auto slice = ParseSlice(communicator.Scatter(std::move(*slices)));
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(slice ? Status() : Status(tl::unexpected(slice.error()))));
  const auto discarding = DiscardWrites(files, Discarded(options.directory));
  MERGEPIPE_ASSIGN_OR_RETURN(const SliceReport report,
                             RunSlice(*discarding, communicator, *slice, options.limits));
  return communicator.Gather(SerializeReport(report));
}

Status AuditSample(FileSystem& files, Communicator& communicator, const AuditOptions& options,
                   const Audited* audited, AuditOutcome& outcome) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto reports,
                             MakeAgain(files, communicator, options, audited, outcome));
  std::optional<WeightFiles> weights;  // the jobs point into it
  Result<std::vector<MadeBlock>> made = std::vector<MadeBlock>();
  Result<std::vector<BlockJob>> jobs = std::vector<BlockJob>();
  if (audited != nullptr) {
    ProblemList problems;
    weights.emplace(FindWeights(files, audited->run.manifest, options.directory, problems));
    made = MadeBlocks(audited->run.manifest, reports);
    if (made) jobs = JobsOf(audited->run.manifest, *weights, *made);
    const Status found = problems.ToStatus(ErrorKind::kVerification);
    if (!found) jobs = tl::unexpected(found.error());
    if (!made) jobs = tl::unexpected(made.error());
  }
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(jobs ? Status() : Status(tl::unexpected(jobs.error()))));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto hashes,
                             HashOnAll(files, communicator, *jobs, options.limits.threads));
  return communicator.Agree(
      audited != nullptr ? CompareSample(audited->run.manifest, *made, hashes, outcome) : Status());
}

}  // namespace

Result<AuditOutcome> AuditOutput(FileSystem& files, Communicator& communicator,
                                 const AuditOptions& options) {
  std::optional<Audited> audited;
  Status status;
  if (communicator.is_root()) {
    auto found = FindAudited(files, options);
    if (found) {
      audited.emplace(std::move(*found));
    } else {
      status = tl::unexpected(found.error());
    }
  }
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(status));
  const Audited* const at_root = audited ? &*audited : nullptr;
  AuditOutcome outcome;
  MERGEPIPE_RETURN_IF_ERROR(
      AuditInputs(files, communicator, at_root, options.limits.threads, outcome));
  if (options.sample > 0)
    MERGEPIPE_RETURN_IF_ERROR(AuditSample(files, communicator, options, at_root, outcome));
  return outcome;
}

}  // namespace mergepipe
