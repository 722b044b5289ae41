#include "run/stored_inputs.h"

#include "mergepipe/base/text.h"

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

}  // namespace mergepipe
