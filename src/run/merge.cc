#include "mergepipe/run/merge.h"

#include "mergepipe/base/text.h"
#include "mergepipe/strategy/strategy.h"
#include "run/execute.h"
#include "run/planning.h"
#include "run/staging.h"

namespace mergepipe {
namespace {

ExecuteRequest RequestFor(const MergeOptions& options, Planned planned, std::string started_at) {
  ExecuteRequest request;
  request.started_at = std::move(started_at);
  request.planned = std::move(planned.merge);
  request.inputs = std::move(planned.inputs);
  request.statistics = std::move(planned.statistics);
  request.target = options.target;
  request.catalog = options.inputs.catalog;
  request.command_line = options.command_line;
  request.publish_hook = options.publish_hook;
  return request;
}

// A model that is not in the catalog as it is on disk has no statistics, and may have no id.
Status CheckAllRegistered(const ResolvedInputs& inputs) {
  std::vector<const ResolvedModel*> models = {&inputs.base};
  for (const ResolvedModel& expert : inputs.experts) models.push_back(&expert);
  for (const ResolvedModel* model : models) {
    if (!model->changed) continue;
    return Fail(ErrorKind::kUsage, "--sweep",
                Quote(model->record.layout.path) + " has not been analyzed, or changed since",
                "run `mergepipe analyze` first");
  }
  return {};
}

// Before anything is read, a probe included. How large a sparse output is only the plan says.
Status CheckTarget(FileSystem& files, const MergeOptions& options, const ResolvedInputs& inputs) {
  MERGEPIPE_RETURN_IF_ERROR(Staging::CheckTarget(files, options.target, inputs.Paths()));
  if (options.target.form == OutputForm::kSparse) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(
      const OutputLayout layout,
      ComputeOutputLayout(inputs.base.record.layout, options.plan.out_dtype));
  return Staging::CheckSpace(files, options.target, layout);
}

}  // namespace

Result<PlannedMerge> PlanMerge(FileSystem& files, Communicator& communicator,
                               const MergeOptions& options) {
  MERGEPIPE_ASSIGN_OR_RETURN(std::optional<Planned> planned,
                             PlanOnAll(files, communicator, options, {}));
  return planned ? std::move(planned->merge) : PlannedMerge();
}

Result<MergeOutcome> RunMerge(FileSystem& files, Communicator& communicator,
                              const MergeOptions& options) {
  std::string started_at = TimestampUtc();
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(
      communicator.is_root() ? Staging::CheckOptions(files, options.target) : Status()));
  MERGEPIPE_ASSIGN_OR_RETURN(
      std::optional<Planned> planned,
      PlanOnAll(files, communicator, options,
                [&](const ResolvedInputs& inputs) { return CheckTarget(files, options, inputs); }));
  return ExecuteOnAll(files, communicator, options.target.gather, options.limits,
                      [&]() -> Result<ExecuteRequest> {
                        return RequestFor(options, std::move(*planned), std::move(started_at));
                      });
}

Result<std::vector<SweepPoint>> SweepMerge(FileSystem& files, const MergeOptions& options,
                                           const std::vector<double>& percents) {
  MERGEPIPE_ASSIGN_OR_RETURN(const StrategyRow* strategy, FindStrategy(options.plan.strategy.name));
  MERGEPIPE_RETURN_IF_ERROR(strategy->check(options.plan.strategy));
  MERGEPIPE_ASSIGN_OR_RETURN(std::shared_ptr<Catalog> catalog,
                             Catalog::OpenIfExists(options.inputs.catalog));
  MERGEPIPE_ASSIGN_OR_RETURN(const ResolvedInputs inputs,
                             FindInputs(files, catalog.get(), options.inputs));
  MERGEPIPE_RETURN_IF_ERROR(CheckAllRegistered(inputs));
  PlanInput input;
  input.options = options.plan;
  input.base = &inputs.base.record;
  input.experts = inputs.Experts();
  input.observation_rounds = strategy->rounds(options.plan.strategy);
  input.coefficients = strategy->largest_coefficients(options.plan.strategy);
  MERGEPIPE_ASSIGN_OR_RETURN(const Plan matched, StartPlan(input));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto statistics,
                             KnownStatistics::Find(catalog, inputs, matched));
  input.statistics = statistics.get();
  return SweepBudgets(input, percents);
}

}  // namespace mergepipe
