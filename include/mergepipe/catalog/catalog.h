#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mergepipe/base/error.h"
#include "mergepipe/catalog/snapshot.h"

/// \file
/// The catalog (MergeDB): one SQLite file with models, tensors, plans and runs. Only rank 0 opens
/// it. It uses a rollback journal, not WAL, because WAL needs shared memory and fails on network
/// filesystems. Every public call that writes is one transaction: a killed process leaves the state
/// before it or after it. The output directories and run folders are the truth; the catalog is an
/// index of them and a cache.
///
/// The file is marked with an application_id and a schema version (user_version). An older schema
/// is migrated on opening; a newer one, and a file that is not a catalog, is refused.
namespace mergepipe {

struct RunRecord {
  std::string run_id;
  std::string plan_id;
  std::string plan_hash;
  std::string model_id;       ///< the output's name
  std::string output_path;    ///< absolute
  std::string run_directory;  ///< absolute
  std::string manifest_hash;
  std::string finished_at;  ///< UTC, ISO 8601

  bool operator==(const RunRecord&) const = default;
};

/// For one thread at a time. Every error names the catalog's path; any call may find the file
/// damaged (kBadInput), locked by another process (kIo, after waiting 5 s), or not writable (kIo).
/// A record that is found is what was put, or an error; damage can hide one, or change an id in a
/// list.
class Catalog {
 public:
  /// Opens an existing catalog. kBadInput if it is absent (remedy: init-db or register), not a
  /// catalog, damaged or of a newer schema; kIo if it is locked or cannot be opened.
  static Result<std::unique_ptr<Catalog>> Open(const std::string& path);
  /// Opens it, or makes it. A new file appears complete or not at all.
  static Result<std::unique_ptr<Catalog>> OpenOrCreate(const std::string& path);
  /// Opens it, or gives nullptr if there is no file.
  static Result<std::unique_ptr<Catalog>> OpenIfExists(const std::string& path);

  virtual ~Catalog() = default;

  virtual Result<std::optional<ModelRecord>> FindModel(const std::string& id) = 0;
  /// By absolute path. Of several models with that path, the one put last.
  virtual Result<std::optional<ModelRecord>> FindModelByPath(const std::string& path) = 0;
  virtual Result<std::vector<std::string>> ModelIds() = 0;  ///< sorted
  /// Adds models, or replaces those with the same ids, all in one transaction.
  /// kInternal for a record that could not be read again (a size over 2^63 - 1, no such file).
  virtual Status PutModels(const std::vector<ModelRecord>& models) = 0;

  /// `json` is the canonical text of plan.json. Putting the same plan again changes nothing;
  /// another one under the same id is kInternal.
  virtual Status PutPlan(const std::string& plan_id, const std::string& plan_hash,
                         const std::string& json) = 0;
  virtual Result<std::optional<std::string>> FindPlan(const std::string& plan_id) = 0;

  /// Adds a run, or replaces the one with its run_id.
  virtual Status PutRun(const RunRecord& run) = 0;
  virtual Result<std::optional<RunRecord>> FindRun(const std::string& run_id) = 0;
  /// The newest run that wrote to that absolute path.
  virtual Result<std::optional<RunRecord>> FindRunByOutput(const std::string& output_path) = 0;
  virtual Result<std::vector<std::string>> RunIds() = 0;  ///< by finished_at, oldest first

  /// Reads the whole file: its structure and every record. kBadInput says what is damaged first.
  virtual Status CheckIntegrity() = 0;
};

}  // namespace mergepipe
