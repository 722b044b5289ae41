#include <chrono>

#include "mergepipe/base/text.h"
#include "mergepipe/io/budget_gate.h"
#include "mergepipe/plan/plan_codec.h"
#include "mergepipe/run/merge.h"
#include "mergepipe/run/records.h"
#include "mergepipe/strategy/strategy.h"
#include "run/execute.h"
#include "run/staging.h"

namespace mergepipe {
namespace {

// The path to take for a model of the plan: the one that the user gives, else the registered one.
Result<std::string> PathOf(Catalog* catalog, const PlannedModel& model, const std::string& given,
                           const std::string& option) {
  if (!given.empty()) return given;
  if (catalog != nullptr) {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto record, catalog->FindModel(model.id));
    if (record) return record->layout.path;
  }
  return Fail(ErrorKind::kBadInput, Quote(model.id), "is not in the catalog",
              "give its path by " + option);
}

Error OtherModel(const ResolvedModel& model, const PlannedModel& planned,
                 const std::string& option) {
  return Error(ErrorKind::kBadInput, model.record.layout.path,
               "is not what the run's input " + Quote(planned.id) + " was (its fingerprint was " +
                   planned.fingerprint.ToHex() + ")",
               "replay needs the very files of the run; give their path by " + option);
}

// `fingerprint_bytes` is what may be read to take its fingerprint.
Result<ResolvedModel> FindInput(FileSystem& files, ModelResolver& resolver, Catalog* catalog,
                                const PlannedModel& planned, const std::string& given,
                                const std::string& option, uint64_t fingerprint_bytes) {
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string path, PathOf(catalog, planned, given, option));
  MERGEPIPE_ASSIGN_OR_RETURN(ResolvedModel model, resolver.Find(path, option));
  if (model.changed && FingerprintBytes(model.record.layout) > fingerprint_bytes) {
    return tl::unexpected(OtherModel(model, planned, option));
  }
  MERGEPIPE_RETURN_IF_ERROR(resolver.Fingerprint(files, model));
  model.record.id = planned.id;
  if (model.record.fingerprint == planned.fingerprint) return model;
  return tl::unexpected(OtherModel(model, planned, option));
}

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
  MERGEPIPE_ASSIGN_OR_RETURN(inputs.base, FindInput(files, resolver, catalog.get(), plan.base,
                                                    options.inputs.base, "--base", UINT64_MAX));
  BudgetShare share{Bytes(plan.fingerprint_bytes)};
  const auto gated = GateAllReads(files, share);
  for (size_t k = 0; k < plan.experts.size(); ++k) {
    const std::string given = options.inputs.experts.empty() ? "" : options.inputs.experts[k];
    MERGEPIPE_ASSIGN_OR_RETURN(
        ResolvedModel expert,
        FindInput(*gated, resolver, catalog.get(), plan.experts[k], given, "--experts",
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
  const PlanInput input{plan.options, &inputs.base.record, inputs.Experts(),
                        strategy->rounds(plan.options.strategy)};
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
  request.planned.probe_bytes_read = request.inputs.probe_bytes_read;
  request.planned.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  request.target = options.target;
  request.catalog = options.catalog;
  request.command_line = options.command_line;
  request.expected = std::move(run.manifest);
  return request;
}

}  // namespace

Result<MergeOutcome> RunReplay(FileSystem& files, Communicator& communicator,
                               const ReplayOptions& options) {
  return ExecuteOnAll(files, communicator, options.limits,
                      [&] { return PrepareReplay(files, options); });
}

}  // namespace mergepipe
