#include "run/stored_inputs.h"

#include "mergepipe/base/text.h"
#include "mergepipe/io/budget_gate.h"
#include "mergepipe/strategy/strategy.h"

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
               "the very files of the run are needed; give their path by " + option);
}

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

}  // namespace

Result<ResolvedModel> FindPlannedModel(FileSystem& files, ModelResolver& resolver, Catalog* catalog,
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

Result<ResolvedInputs> FindPlannedInputs(FileSystem& files, const std::string& catalog_path,
                                         const MergeInputs& given, const Plan& plan) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto catalog, Catalog::OpenIfExists(catalog_path));
  if (!given.experts.empty() && given.experts.size() != plan.experts.size()) {
    return Fail(ErrorKind::kUsage, "--experts",
                "names " + std::to_string(given.experts.size()) + " models, the run has " +
                    std::to_string(plan.experts.size()),
                "give all of them, in the run's order");
  }
  ModelResolver resolver(files, catalog.get());
  ResolvedInputs inputs;
  MERGEPIPE_ASSIGN_OR_RETURN(
      inputs.base, FindPlannedModel(files, resolver, catalog.get(), plan.base, given.base, "--base",
                                    UINT64_MAX));
  BudgetShare share{Bytes(plan.fingerprint_bytes)};
  const auto gated = GateAllReads(files, share);
  for (size_t k = 0; k < plan.experts.size(); ++k) {
    MERGEPIPE_ASSIGN_OR_RETURN(
        ResolvedModel expert,
        FindPlannedModel(*gated, resolver, catalog.get(), plan.experts[k],
                         given.experts.empty() ? "" : given.experts[k], "--experts",
                         share.limit().count() - share.spent().count()));
    inputs.experts.push_back(std::move(expert));
  }
  inputs.probe_bytes_read = share.spent().count();
  MERGEPIPE_RETURN_IF_ERROR(CheckFits(plan, inputs));
  return inputs;
}

}  // namespace mergepipe
