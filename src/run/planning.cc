#include "run/planning.h"

#include <chrono>

#include "mergepipe/plan/plan_codec.h"
#include "mergepipe/strategy/strategy.h"
#include "run/host_inputs.h"
#include "run/statistics_steps.h"

namespace mergepipe {
namespace {

// Rank 0's way to a plan, before and after the statistics are taken on all ranks.
class Planning {
 public:
  Planning(FileSystem& files, const MergeOptions& options) : files_(files), options_(options) {}

  // Up to the question what is to be scanned.
  Status Prepare(int ranks, const std::function<Status(const ResolvedInputs&)>& check) {
    MERGEPIPE_RETURN_IF_ERROR(FindModels());
    if (check) MERGEPIPE_RETURN_IF_ERROR(check(planned_.inputs));
    MERGEPIPE_ASSIGN_OR_RETURN(started_, StartPlan(input_));
    MERGEPIPE_ASSIGN_OR_RETURN(planned_.statistics,
                               KnownStatistics::Find(catalog_, planned_.inputs, started_));
    const std::vector<uint32_t> unknown = planned_.statistics->Unknown();
    if (unknown.empty() || !NeedsScores(input_, started_)) return {};
    switch (options_.analyze) {
      case AnalyzeMode::kNone: return {};  // the planner says what is missing
      case AnalyzeMode::kFull: return PrepareAnalysis(unknown, ranks);
      case AnalyzeMode::kAuto:
      case AnalyzeMode::kProbe: return PrepareProbe(unknown, ranks);
    }
    return {};
  }

  const ResolvedInputs& inputs() const { return planned_.inputs; }
  ScanSteps* steps() { return steps_.get(); }
  const ScanPartitioner* partitioner() const { return partitioner_.get(); }

  Status Finish(std::vector<PlanningIo> read) {
    input_.statistics = planned_.statistics.get();
    PlannedMerge& merge = planned_.merge;
    MERGEPIPE_ASSIGN_OR_RETURN(merge.plan, MakePlan(input_));
    merge.plan_text = SerializePlan(merge.plan);
    merge.plan_hash = PlanHash(merge.plan);
    merge.read = std::move(read);
    merge.read.front().expert_bytes += planned_.inputs.probe_bytes_read;
    merge.warnings = InputWarnings(planned_.inputs, merge.plan);
    MERGEPIPE_RETURN_IF_ERROR(Remember());
    merge.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    return {};
  }

  Planned Take() { return std::move(planned_); }

 private:
  Status FindModels() {
    MERGEPIPE_ASSIGN_OR_RETURN(const StrategyRow* strategy,
                               FindStrategy(options_.plan.strategy.name));
    MERGEPIPE_RETURN_IF_ERROR(strategy->check(options_.plan.strategy));
    MERGEPIPE_ASSIGN_OR_RETURN(catalog_, Catalog::OpenIfExists(options_.inputs.catalog));
    MERGEPIPE_ASSIGN_OR_RETURN(
        planned_.inputs,
        ResolveInputs(files_, catalog_.get(), options_.inputs, options_.plan.budget_bytes));
    input_.options = options_.plan;
    input_.base = &planned_.inputs.base.record;
    input_.experts = planned_.inputs.Experts();
    input_.observation_rounds = strategy->rounds(options_.plan.strategy);
    input_.coefficients = strategy->largest_coefficients(options_.plan.strategy);
    input_.allow_empty = options_.allow_empty;
    return {};
  }

  Status PrepareProbe(const std::vector<uint32_t>& experts, int ranks) {
    MERGEPIPE_ASSIGN_OR_RETURN(const ProbeReads probe, PlanProbe(input_, started_, experts));
    if (probe.stride == 0) return {};  // nothing can be read, and that is allowed
    return PrepareScan({experts, probe.stride, false}, ranks);
  }

  // An analysis counts as a whole until it is complete, whatever a killed one has left: the same
  // command makes the same plan when it goes on.
  Status PrepareAnalysis(const std::vector<uint32_t>& experts, int ranks) {
    for (const PlannedTensor& tensor : started_.tensors) {
      for (const uint32_t k : experts) {
        if (HasDelta(tensor, k)) input_.analysis_bytes += tensor.ExpertBytes(k);
      }
    }
    MERGEPIPE_RETURN_IF_ERROR(CheckAnalysisFits());
    return PrepareScan({experts, 0, false}, ranks);
  }

  // The models are put into the catalog before anything is read of them.
  Status PrepareScan(const StatisticsWish& wish, int ranks) {
    MERGEPIPE_RETURN_IF_ERROR(PutIntoCatalog());
    MERGEPIPE_ASSIGN_OR_RETURN(planned_.statistics,
                               KnownStatistics::Find(catalog_, planned_.inputs, started_));
    planned_.statistics->Expect(wish.experts, wish.stride);
    partitioner_ = std::make_unique<ScanPartitioner>(planned_.inputs, started_, wish.stride > 0,
                                                     input_.options.allow_nonfinite);
    MERGEPIPE_ASSIGN_OR_RETURN(
        steps_, StatisticsSteps::Start(files_, catalog_, planned_.inputs, started_, *partitioner_,
                                       wish, ranks));
    return {};
  }

  // The models, and the catalog itself if there is none yet.
  Status PutIntoCatalog() {
    if (catalog_ == nullptr) {
      MERGEPIPE_ASSIGN_OR_RETURN(catalog_, Catalog::OpenOrCreate(options_.inputs.catalog));
    }
    return PutModels(*catalog_, planned_.inputs);
  }

  Status CheckAnalysisFits() const {
    const auto budget = input_.options.budget_bytes;
    const Bytes needed = Bytes(started_.fingerprint_bytes) + Bytes(input_.analysis_bytes);
    if (!budget || needed <= Bytes(*budget)) return {};
    return Fail(ErrorKind::kUsage, "--analyze full",
                "reads " + FormatBytes(needed) + " of the experts, the budget is " +
                    FormatBytes(Bytes(*budget)),
                "run `mergepipe analyze` once before, or pass --analyze probe");
  }

  // Only when nothing is wrong any more: a merge that is refused before it reads leaves no catalog.
  Status Remember() {
    MERGEPIPE_RETURN_IF_ERROR(PutIntoCatalog());
    const std::string& hash = planned_.merge.plan_hash;
    return catalog_->PutPlan(PlanIdOf(hash), hash, planned_.merge.plan_text);
  }

  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  FileSystem& files_;
  const MergeOptions& options_;
  std::shared_ptr<Catalog> catalog_;
  Planned planned_;
  PlanInput input_;
  Plan started_;
  std::unique_ptr<ScanPartitioner> partitioner_;
  std::unique_ptr<StatisticsSteps> steps_;
};

}  // namespace

Result<std::optional<Planned>> PlanOnAll(
    FileSystem& files, Communicator& communicator, const MergeOptions& options,
    const std::function<Status(const ResolvedInputs&)>& check) {
  std::optional<Planning> root;
  if (communicator.is_root()) root.emplace(files, options);
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(root ? root->Prepare(communicator.size(), check) : Status()));
  std::string scan = root && root->steps() != nullptr ? "scan" : "";
  communicator.Broadcast(scan);
  std::vector<PlanningIo> read(static_cast<size_t>(communicator.size()));
  if (!scan.empty()) {
    MERGEPIPE_RETURN_IF_ERROR(
        CheckInputsOnHosts(files, communicator, root ? &root->inputs() : nullptr, 0, nullptr));
    MERGEPIPE_RETURN_IF_ERROR(ScanOnAll(files, communicator, options.limits,
                                        root ? root->steps() : nullptr,
                                        root ? root->partitioner() : nullptr, read));
  }
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(root ? root->Finish(std::move(read)) : Status()));
  if (!root) return std::nullopt;
  return std::optional(root->Take());
}

}  // namespace mergepipe
