#include <chrono>

#include "mergepipe/io/budget_gate.h"
#include "mergepipe/plan/plan_codec.h"
#include "mergepipe/run/merge.h"
#include "mergepipe/run/records.h"
#include "mergepipe/strategy/strategy.h"
#include "run/execute.h"
#include "run/staging.h"
#include "run/stored_inputs.h"

namespace mergepipe {
namespace {

Result<ResolvedInputs> FindInputs(FileSystem& files, const ReplayOptions& options,
                                  const Plan& plan) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto catalog, Catalog::OpenIfExists(options.catalog));
  if (!options.inputs.experts.empty() && options.inputs.experts.size() != plan.experts.size()) {
    return Fail(ErrorKind::kUsage, "--experts",
                "names " + std::to_string(options.inputs.experts.size()) + " models, the run has " +
                    std::to_string(plan.experts.size()),
                "give all of them, in the run's order");
  }
  ModelResolver resolver(files, catalog.get());
  ResolvedInputs inputs;
  MERGEPIPE_ASSIGN_OR_RETURN(
      inputs.base, FindPlannedModel(files, resolver, catalog.get(), plan.base, options.inputs.base,
                                    "--base", UINT64_MAX));
  BudgetShare share{Bytes(plan.fingerprint_bytes)};
  const auto gated = GateAllReads(files, share);
  for (size_t k = 0; k < plan.experts.size(); ++k) {
    const std::string given = options.inputs.experts.empty() ? "" : options.inputs.experts[k];
    MERGEPIPE_ASSIGN_OR_RETURN(
        ResolvedModel expert,
        FindPlannedModel(*gated, resolver, catalog.get(), plan.experts[k], given, "--experts",
                         share.limit().count() - share.spent().count()));
    inputs.experts.push_back(std::move(expert));
  }
  inputs.probe_bytes_read = share.spent().count();
  return inputs;
}

// The stored plan is data from elsewhere: it must be one that this program could have made from
// these inputs.
Status CheckFits(const Plan& plan, const ResolvedInputs& inputs) {
  MERGEPIPE_ASSIGN_OR_RETURN(const StrategyRow* strategy, FindStrategy(plan.options.strategy.name));
  MERGEPIPE_RETURN_IF_ERROR(strategy->check(plan.options.strategy));
  PlanInput input;
  input.options = plan.options;
  input.base = &inputs.base.record;
  input.experts = inputs.Experts();
  input.observation_rounds = strategy->rounds(plan.options.strategy);
  return CheckPlanFits(plan, input);
}

Result<ExecuteRequest> PrepareReplay(FileSystem& files, const ReplayOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  ExecuteRequest request;
  request.started_at = TimestampUtc();
  MERGEPIPE_RETURN_IF_ERROR(Staging::CheckOptions(files, options.target));
  MERGEPIPE_ASSIGN_OR_RETURN(
      StoredRun run, LoadRun(files, {options.catalog, options.target.runs_directory}, options.run));
  MERGEPIPE_ASSIGN_OR_RETURN(request.inputs, FindInputs(files, options, run.plan));
  MERGEPIPE_RETURN_IF_ERROR(CheckFits(run.plan, request.inputs));
  MERGEPIPE_RETURN_IF_ERROR(Staging::CheckTarget(files, options.target, request.inputs.Paths()));
  request.planned.plan_hash = PlanHash(run.plan);
  request.planned.plan = std::move(run.plan);
  request.planned.plan_text = std::move(run.plan_text);
  request.planned.read = {{request.inputs.probe_bytes_read, 0}};
  request.planned.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  request.target = options.target;
  request.target.form = run.manifest.output;
  request.catalog = options.catalog;
  request.command_line = options.command_line;
  request.expected = std::move(run.manifest);
  return request;
}

}  // namespace

Result<MergeOutcome> RunReplay(FileSystem& files, Communicator& communicator,
                               const ReplayOptions& options) {
  return ExecuteOnAll(files, communicator, options.target.gather, options.limits,
                      [&] { return PrepareReplay(files, options); });
}

}  // namespace mergepipe
