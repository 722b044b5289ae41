#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "mergepipe/catalog/catalog.h"
#include "mergepipe/io/file.h"

namespace mergepipe {

/// Whether `id` can name a model: letters, digits, '.', '_', '-', '+', not starting with '.' or
/// '-', at most 128 bytes. kUsage with `option` as its subject if not.
Status CheckModelId(const std::string& id, const std::string& option);

/// The id that a path suggests: its last part, without .safetensors, with '_' for what an id cannot
/// have.
std::string IdFromPath(const std::string& path);

/// A model that a command works with.
struct ResolvedModel {
  ModelRecord record;
  bool changed = false;  ///< not in the catalog as it is here: to be put there
};

/// Finds models by id or path, reads their headers and takes their fingerprints where the catalog's
/// are stale.
class ModelResolver {
 public:
  /// `catalog` may be null: then there are no ids.
  ModelResolver(FileSystem& files, Catalog* catalog) : files_(files), catalog_(catalog) {}

  /// `argument` is a registered id or a path; `option` names the option in errors. The fingerprint
  /// is not taken yet.
  Result<ResolvedModel> Find(const std::string& argument, const std::string& option);
  /// Takes the fingerprint through `files`, unless the catalog's holds.
  Status Fingerprint(FileSystem& files, ResolvedModel& model);
  /// Gives a model that is not registered yet an id: its directory's name, or that with a part of
  /// the fingerprint if another model has it (in the catalog, or in `taken`).
  Status NameIt(ResolvedModel& model, const std::vector<std::string>& taken);

 private:
  Result<std::optional<ModelRecord>> FindById(const std::string& id);

  FileSystem& files_;
  Catalog* catalog_;
};

/// Registers the model at `path` under `id` (empty: the directory's name) and returns its record.
/// Registering the same model again renews it. kUsage if the id belongs to another path.
Result<ModelRecord> RegisterModel(FileSystem& files, const std::string& catalog,
                                  const std::string& path, const std::string& id);

/// Now in UTC: "2026-02-03T10:15:00Z", and "20260203_101500" for run ids.
std::string TimestampUtc();
std::string RunTimestampUtc();

}  // namespace mergepipe
