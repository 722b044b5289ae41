#include "mergepipe/run/analyze.h"

#include <chrono>

#include "mergepipe/plan/planner.h"
#include "run/host_inputs.h"
#include "run/statistics_steps.h"

namespace mergepipe {
namespace {

// Rank 0's part of an analysis, before and after the scan.
class Analysis {
 public:
  Analysis(FileSystem& files, const AnalyzeOptions& options) : files_(files), options_(options) {}

  Status Prepare(int ranks) {
    MERGEPIPE_RETURN_IF_ERROR(FindModels());
    MERGEPIPE_ASSIGN_OR_RETURN(std::shared_ptr<Catalog> catalog,
                               Catalog::OpenOrCreate(options_.inputs.catalog));
    MERGEPIPE_RETURN_IF_ERROR(PutModels(*catalog, inputs_));
    partitioner_ =
        std::make_unique<ScanPartitioner>(inputs_, matched_, false, options_.allow_nonfinite);
    StatisticsWish wish{{}, 0, options_.force};
    for (uint32_t k = 0; k < inputs_.experts.size(); ++k) wish.experts.push_back(k);
    MERGEPIPE_ASSIGN_OR_RETURN(steps_, StatisticsSteps::Start(files_, catalog, inputs_, matched_,
                                                              *partitioner_, wish, ranks));
    return {};
  }

  const ResolvedInputs& inputs() const { return inputs_; }
  ScanSteps* steps() { return steps_.get(); }
  const ScanPartitioner* partitioner() const { return partitioner_.get(); }

  AnalyzeOutcome Finish(std::vector<PlanningIo> read) const {
    AnalyzeOutcome outcome;
    outcome.base = inputs_.base.record.id;
    for (size_t k = 0; k < inputs_.experts.size(); ++k)
      outcome.experts.push_back({inputs_.experts[k].record.id, steps_->Wants(k)});
    outcome.blocks = ProbeNumbering(inputs_.base.record.layout, options_.block_size).Count();
    outcome.read = std::move(read);
    outcome.read.front().expert_bytes += inputs_.probe_bytes_read;
    outcome.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    return outcome;
  }

 private:
  Status FindModels() {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto catalog, Catalog::OpenIfExists(options_.inputs.catalog));
    MERGEPIPE_ASSIGN_OR_RETURN(inputs_,
                               ResolveInputs(files_, catalog.get(), options_.inputs, std::nullopt));
    PlanInput input;
    input.options.block_size = options_.block_size;
    input.options.missing = MismatchPolicy::kBase;  // a merge decides about these
    input.options.extra = MismatchPolicy::kDrop;
    input.base = &inputs_.base.record;
    input.experts = inputs_.Experts();
    MERGEPIPE_ASSIGN_OR_RETURN(matched_, StartPlan(input));
    return {};
  }

  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  FileSystem& files_;
  const AnalyzeOptions& options_;
  ResolvedInputs inputs_;
  Plan matched_;
  std::unique_ptr<ScanPartitioner> partitioner_;
  std::unique_ptr<StatisticsSteps> steps_;
};

}  // namespace

Result<AnalyzeOutcome> RunAnalyze(FileSystem& files, Communicator& communicator,
                                  const AnalyzeOptions& options) {
  std::optional<Analysis> root;
  if (communicator.is_root()) root.emplace(files, options);
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(root ? root->Prepare(communicator.size()) : Status()));
  std::vector<PlanningIo> read(static_cast<size_t>(communicator.size()));
  MERGEPIPE_RETURN_IF_ERROR(
      CheckInputsOnHosts(files, communicator, root ? &root->inputs() : nullptr, UINT64_MAX, &read));
  MERGEPIPE_RETURN_IF_ERROR(ScanOnAll(files, communicator, options.limits,
                                      root ? root->steps() : nullptr,
                                      root ? root->partitioner() : nullptr, read));
  return root ? root->Finish(std::move(read)) : AnalyzeOutcome();
}

}  // namespace mergepipe
