#include "mergepipe/run/models.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <ctime>

#include "mergepipe/base/nearest_name.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

constexpr size_t kMaxIdBytes = 128;
constexpr size_t kFingerprintPart = 8;

bool IsIdChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-' || c == '+';
}

}  // namespace

std::string IdFromPath(const std::string& path) {
  std::string id = BaseName(path);
  constexpr std::string_view kExtension = ".safetensors";
  if (id.ends_with(kExtension)) id.resize(id.size() - kExtension.size());
  std::replace_if(
      id.begin(), id.end(), [](char c) { return !IsIdChar(c); }, '_');
  if (id.empty() || id.front() == '.' || id.front() == '-') id.insert(0, "m");
  return id.substr(0, kMaxIdBytes - kFingerprintPart - 1);
}

Status CheckModelId(const std::string& id, const std::string& option) {
  const bool good = !id.empty() && id.size() <= kMaxIdBytes && id.front() != '.' &&
                    id.front() != '-' && std::all_of(id.begin(), id.end(), IsIdChar);
  if (good) return {};
  return Fail(ErrorKind::kUsage, option, Quote(id) + " cannot name a model",
              "use letters, digits, '.', '_', '-' and '+'");
}

Result<std::optional<ModelRecord>> ModelResolver::FindById(const std::string& id) {
  if (catalog_ == nullptr) return std::nullopt;
  return catalog_->FindModel(id);
}

Result<ResolvedModel> ModelResolver::Find(const std::string& argument, const std::string& option) {
  MERGEPIPE_ASSIGN_OR_RETURN(std::optional<ModelRecord> stored, FindById(argument));
  MERGEPIPE_ASSIGN_OR_RETURN(const bool on_disk, files_.Exists(argument));
  if (stored && on_disk && AbsolutePath(argument) != stored->layout.path) {
    return Fail(ErrorKind::kUsage, option,
                Quote(argument) + " is both a registered model (" + stored->layout.path +
                    ") and a path here",
                "write './" + argument + "' for the path, or the registered model's full path");
  }
  if (!stored && !on_disk) {
    std::vector<std::string> ids;
    if (catalog_ != nullptr) {
      MERGEPIPE_ASSIGN_OR_RETURN(ids, catalog_->ModelIds());
    }
    const auto nearest = NearestName(argument, ids);
    const std::string remedy = nearest ? "did you mean " + Quote(*nearest) + "?"
                                       : "see `mergepipe models`, or check the path";
    return Fail(ErrorKind::kBadInput, option,
                Quote(argument) + " is neither a registered model nor an existing path", remedy);
  }
  const std::string path = stored ? stored->layout.path : AbsolutePath(argument);
  if (!stored && catalog_ != nullptr) {
    MERGEPIPE_ASSIGN_OR_RETURN(stored, catalog_->FindModelByPath(path));
  }
  ResolvedModel model;
  MERGEPIPE_ASSIGN_OR_RETURN(ModelLayout layout, ReadModel(files_, path));
  if (stored) model.record = *stored;
  model.changed = !stored || !LooksUnchanged(stored->layout, layout);
  model.record.layout = std::move(layout);
  if (model.changed) model.record.registered_at = TimestampUtc();
  return model;
}

Status ModelResolver::Fingerprint(FileSystem& files, ResolvedModel& model) {
  if (!model.changed) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(model.record.fingerprint, TakeFingerprint(files, model.record.layout));
  return {};
}

Status ModelResolver::NameIt(ResolvedModel& model, const std::vector<std::string>& taken) {
  if (!model.record.id.empty()) return {};
  const std::string id = IdFromPath(model.record.layout.path);
  const auto is_taken = [&](const std::string& name) -> Result<bool> {
    if (std::find(taken.begin(), taken.end(), name) != taken.end()) return true;
    MERGEPIPE_ASSIGN_OR_RETURN(const auto other, FindById(name));
    return other.has_value();
  };
  MERGEPIPE_ASSIGN_OR_RETURN(const bool plain_taken, is_taken(id));
  model.record.id =
      plain_taken ? id + "-" + model.record.fingerprint.ToHex().substr(0, kFingerprintPart) : id;
  MERGEPIPE_ASSIGN_OR_RETURN(const bool still_taken, is_taken(model.record.id));
  if (!still_taken) return {};
  return Fail(ErrorKind::kUsage, model.record.layout.path,
              "the ids " + Quote(id) + " and " + Quote(model.record.id) + " belong to other models",
              "register it under an id of your choice: mergepipe register PATH --id ID");
}

Result<ModelRecord> RegisterModel(FileSystem& files, const std::string& catalog,
                                  const std::string& path, const std::string& id) {
  const std::string name = id.empty() ? IdFromPath(AbsolutePath(path)) : id;
  MERGEPIPE_RETURN_IF_ERROR(CheckModelId(name, "--id"));
  ModelRecord record;
  record.id = name;
  record.registered_at = TimestampUtc();
  MERGEPIPE_ASSIGN_OR_RETURN(record.layout, ReadModel(files, AbsolutePath(path)));
  MERGEPIPE_ASSIGN_OR_RETURN(record.fingerprint, TakeFingerprint(files, record.layout));

  MERGEPIPE_ASSIGN_OR_RETURN(const auto db, Catalog::OpenOrCreate(catalog));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto other, db->FindModel(name));
  if (other && other->layout.path != record.layout.path) {
    return Fail(ErrorKind::kUsage, "--id",
                Quote(name) + " is registered already, for " + other->layout.path,
                "choose another id");
  }
  MERGEPIPE_RETURN_IF_ERROR(db->PutModels({record}));
  return record;
}

std::string TimestampUtc() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

std::string RunTimestampUtc() {
  return fmt::format("{:%Y%m%d_%H%M%S}", fmt::gmtime(std::time(nullptr)));
}

}  // namespace mergepipe
