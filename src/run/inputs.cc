#include "run/inputs.h"

#include <algorithm>
#include <set>

#include "mergepipe/base/text.h"
#include "mergepipe/io/budget_gate.h"

namespace mergepipe {
namespace {

// Keeps the first kind of error and all problems.
class Failures {
 public:
  void Add(const Error& error) {
    if (problems_.empty()) kind_ = error.kind();
    problems_.Add(error);
  }
  Status ToStatus() const { return problems_.ToStatus(kind_); }

 private:
  ErrorKind kind_ = ErrorKind::kBadInput;
  ProblemList problems_;
};

Status CheckDistinct(const ResolvedInputs& inputs) {
  std::set<std::string> paths = {inputs.base.record.layout.path};
  for (const ResolvedModel& expert : inputs.experts) {
    const std::string& path = expert.record.layout.path;
    if (!paths.insert(path).second) {
      return Fail(ErrorKind::kUsage, "--experts", Quote(path) + " is given twice (or is the base)",
                  "name every model once; --weights gives one more weight");
    }
  }
  return {};
}

Status TakeFingerprints(FileSystem& files, ModelResolver& resolver,
                        std::optional<uint64_t> budget_bytes, ResolvedInputs& inputs) {
  MERGEPIPE_RETURN_IF_ERROR(resolver.Fingerprint(files, inputs.base));
  uint64_t needed = 0;
  for (const ResolvedModel& expert : inputs.experts)
    needed += FingerprintBytes(expert.record.layout);
  if (budget_bytes && needed > *budget_bytes) {
    return Fail(ErrorKind::kUsage, "--io-budget-mb",
                "a budget of " + FormatBytes(Bytes(*budget_bytes)) +
                    " does not even cover the experts' fingerprints (" +
                    FormatBytes(Bytes(needed)) + ")",
                "give at least " + std::to_string(CeilDivide(needed, kMiB) + 1) + " MiB");
  }
  BudgetShare share{Bytes(needed)};
  const auto gated = GateAllReads(files, share);
  for (ResolvedModel& expert : inputs.experts)
    MERGEPIPE_RETURN_IF_ERROR(resolver.Fingerprint(*gated, expert));
  inputs.probe_bytes_read = share.spent().count();
  return {};
}

Status NameModels(ModelResolver& resolver, ResolvedInputs& inputs) {
  std::vector<std::string> taken;
  std::vector<ResolvedModel*> models = {&inputs.base};
  for (ResolvedModel& expert : inputs.experts) models.push_back(&expert);
  for (const ResolvedModel* model : models) {
    if (!model->record.id.empty()) taken.push_back(model->record.id);
  }
  for (ResolvedModel* model : models) {
    if (!model->record.id.empty()) continue;
    MERGEPIPE_RETURN_IF_ERROR(resolver.NameIt(*model, taken));
    taken.push_back(model->record.id);
  }
  return {};
}

std::string WhatChanged(const FileInfo& before, const FileInfo& now) {
  if (now.inode != before.inode || now.device != before.device)
    return "was replaced by another file";
  if (now.size != before.size) {
    return "has " + std::to_string(now.size) + " bytes now, and had " + std::to_string(before.size);
  }
  return "was written to";
}

// Adds every file that is not what it was.
Status FindChanges(FileSystem& files, const ModelLayout& layout, ProblemList& changed) {
  static constexpr const char* kRemedy = "leave the inputs alone until it is done; run it again";
  for (uint32_t i = 0; i < layout.files.size(); ++i) {
    const std::string path = layout.FilePath(i);
    MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files.Exists(path));
    if (!there) {
      changed.Add(path, "was removed while it was in use", kRemedy);
      continue;
    }
    MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo now, files.Stat(path));
    const FileInfo& before = layout.files[i].info;
    if (!(now == before))
      changed.Add(path, WhatChanged(before, now) + " while it was in use", kRemedy);
  }
  return {};
}

}  // namespace

std::vector<ModelRecord> ResolvedInputs::Changed() const {
  std::vector<ModelRecord> changed;
  if (base.changed) changed.push_back(base.record);
  for (const ResolvedModel& expert : experts) {
    if (expert.changed) changed.push_back(expert.record);
  }
  return changed;
}

std::vector<const ModelRecord*> ResolvedInputs::Experts() const {
  std::vector<const ModelRecord*> records;
  for (const ResolvedModel& expert : experts) records.push_back(&expert.record);
  return records;
}

std::vector<std::string> ResolvedInputs::Paths() const {
  std::vector<std::string> paths = {base.record.layout.path};
  for (const ResolvedModel& expert : experts) paths.push_back(expert.record.layout.path);
  return paths;
}

Result<ResolvedInputs> FindInputs(FileSystem& files, Catalog* catalog, const MergeInputs& inputs) {
  ModelResolver resolver(files, catalog);
  ResolvedInputs resolved;
  Failures failures;
  if (auto base = resolver.Find(inputs.base, "--base")) {
    resolved.base = std::move(*base);
  } else {
    failures.Add(base.error());
  }
  for (const std::string& argument : inputs.experts) {
    if (auto expert = resolver.Find(argument, "--experts")) {
      resolved.experts.push_back(std::move(*expert));
    } else {
      failures.Add(expert.error());
    }
  }
  MERGEPIPE_RETURN_IF_ERROR(failures.ToStatus());
  MERGEPIPE_RETURN_IF_ERROR(CheckDistinct(resolved));
  return resolved;
}

Result<ResolvedInputs> ResolveInputs(FileSystem& files, Catalog* catalog, const MergeInputs& inputs,
                                     std::optional<uint64_t> budget_bytes) {
  ModelResolver resolver(files, catalog);
  MERGEPIPE_ASSIGN_OR_RETURN(ResolvedInputs resolved, FindInputs(files, catalog, inputs));
  MERGEPIPE_RETURN_IF_ERROR(TakeFingerprints(files, resolver, budget_bytes, resolved));
  MERGEPIPE_RETURN_IF_ERROR(NameModels(resolver, resolved));
  return resolved;
}

Status PutModels(Catalog& catalog, ResolvedInputs& inputs) {
  const std::vector<ModelRecord> changed = inputs.Changed();
  if (!changed.empty()) MERGEPIPE_RETURN_IF_ERROR(catalog.PutModels(changed));
  inputs.base.changed = false;
  for (ResolvedModel& expert : inputs.experts) expert.changed = false;
  return {};
}

Status CheckUnchanged(FileSystem& files, const ModelLayout& layout) {
  ProblemList changed;
  MERGEPIPE_RETURN_IF_ERROR(FindChanges(files, layout, changed));
  return changed.ToStatus(ErrorKind::kBadInput);
}

Status CheckUnchanged(FileSystem& files, const ResolvedInputs& inputs) {
  ProblemList changed;
  MERGEPIPE_RETURN_IF_ERROR(FindChanges(files, inputs.base.record.layout, changed));
  for (const ResolvedModel& expert : inputs.experts)
    MERGEPIPE_RETURN_IF_ERROR(FindChanges(files, expert.record.layout, changed));
  return changed.ToStatus(ErrorKind::kBadInput);
}

std::vector<std::string> InputWarnings(const ResolvedInputs& inputs, const Plan& plan) {
  std::vector<std::string> warnings;
  const bool uncompared = std::any_of(
      plan.tensors.begin(), plan.tensors.end(),
      [](const PlannedTensor& tensor) { return !IsFloat(tensor.dtype) && !tensor.compare; });
  if (uncompared) {
    warnings.push_back(
        "integer tensors are the base's; whether the experts differ there is not checked, as it "
        "would take "
        "over 1 % of the budget");
  }
  for (size_t k = 0; k < inputs.experts.size(); ++k) {
    const ModelRecord& expert = inputs.experts[k].record;
    if (expert.fingerprint == inputs.base.record.fingerprint) {
      warnings.push_back("expert " + Quote(expert.id) +
                         " looks identical to the base (same fingerprint)");
    }
    std::vector<std::string> missing;
    for (const PlannedTensor& tensor : plan.tensors) {
      if (!tensor.sources[k].present) missing.push_back(tensor.name);
    }
    if (!missing.empty()) {
      warnings.push_back("expert " + Quote(expert.id) + " lacks " + std::to_string(missing.size()) +
                         " tensors, which stay as in the base: " + JoinNames(missing, 3));
    }
    std::vector<std::string> dropped;
    for (const DroppedTensor& tensor : plan.dropped) {
      if (tensor.expert == k) dropped.push_back(tensor.name);
    }
    if (!dropped.empty()) {
      warnings.push_back("expert " + Quote(expert.id) + " has " + std::to_string(dropped.size()) +
                         " tensors that are left out: " + JoinNames(dropped, 3));
    }
  }
  return warnings;
}

}  // namespace mergepipe
