#include "mergepipe/run/merge.h"

#include <chrono>

#include "mergepipe/plan/plan_codec.h"
#include "mergepipe/strategy/strategy.h"
#include "run/execute.h"
#include "run/staging.h"

namespace mergepipe {
namespace {

// A planned merge and the inputs that it was planned for.
struct Planned {
  PlannedMerge merge;
  ResolvedInputs inputs;
};

Result<Planned> PlanFromInputs(FileSystem& files, const MergeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  MERGEPIPE_ASSIGN_OR_RETURN(const StrategyRow* strategy, FindStrategy(options.plan.strategy.name));
  MERGEPIPE_RETURN_IF_ERROR(strategy->check(options.plan.strategy));

  MERGEPIPE_ASSIGN_OR_RETURN(auto catalog, Catalog::OpenIfExists(options.inputs.catalog));
  Planned planned;
  MERGEPIPE_ASSIGN_OR_RETURN(planned.inputs, ResolveInputs(files, catalog.get(), options.inputs,
                                                           options.plan.budget_bytes));
  PlanInput input{options.plan, &planned.inputs.base.record, planned.inputs.Experts(),
                  strategy->rounds(options.plan.strategy)};
  MERGEPIPE_ASSIGN_OR_RETURN(planned.merge.plan, MakePlan(input));
  planned.merge.plan_text = SerializePlan(planned.merge.plan);
  planned.merge.plan_hash = PlanHash(planned.merge.plan);
  planned.merge.probe_bytes_read = planned.inputs.probe_bytes_read;
  planned.merge.warnings = InputWarnings(planned.inputs, planned.merge.plan);
  planned.merge.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return planned;
}

// Only when nothing is wrong any more, so that a refused merge leaves no catalog behind.
Status RememberPlan(const MergeOptions& options, const Planned& planned) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto catalog, Catalog::OpenOrCreate(options.inputs.catalog));
  if (const auto changed = planned.inputs.Changed(); !changed.empty()) {
    MERGEPIPE_RETURN_IF_ERROR(catalog->PutModels(changed));
  }
  const std::string& hash = planned.merge.plan_hash;
  return catalog->PutPlan(PlanIdOf(hash), hash, planned.merge.plan_text);
}

Result<ExecuteRequest> PlanOnRoot(FileSystem& files, const MergeOptions& options) {
  ExecuteRequest request;
  request.started_at = TimestampUtc();
  MERGEPIPE_RETURN_IF_ERROR(Staging::CheckOptions(files, options.target));
  MERGEPIPE_ASSIGN_OR_RETURN(Planned planned, PlanFromInputs(files, options));
  MERGEPIPE_RETURN_IF_ERROR(Staging::CheckTarget(files, options.target, planned.inputs.Paths()));
  MERGEPIPE_RETURN_IF_ERROR(RememberPlan(options, planned));
  request.planned = std::move(planned.merge);
  request.inputs = std::move(planned.inputs);
  request.target = options.target;
  request.catalog = options.inputs.catalog;
  request.command_line = options.command_line;
  request.publish_hook = options.publish_hook;
  return request;
}

}  // namespace

Result<PlannedMerge> PlanMerge(FileSystem& files, const MergeOptions& options) {
  MERGEPIPE_ASSIGN_OR_RETURN(Planned planned, PlanFromInputs(files, options));
  MERGEPIPE_RETURN_IF_ERROR(RememberPlan(options, planned));
  return std::move(planned.merge);
}

Result<MergeOutcome> RunMerge(FileSystem& files, Communicator& communicator,
                              const MergeOptions& options) {
  return ExecuteOnAll(files, communicator, options.limits,
                      [&] { return PlanOnRoot(files, options); });
}

}  // namespace mergepipe
