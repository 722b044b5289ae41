#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mergepipe/base/build_info.h"
#include "mergepipe/base/error.h"
#include "mergepipe/catalog/snapshot.h"
#include "mergepipe/format/block_statistics.h"

/// \file
/// The catalog (MergeDB): one SQLite file with models, tensors, statistics, plans and runs. Only
/// rank 0 opens it. It uses a rollback journal, not WAL, because WAL needs shared memory and fails
/// on network filesystems. Every public call that writes is one transaction: a killed process
/// leaves the state before it or after it. The output directories and run folders are the truth;
/// the catalog is an index of them and a cache.
///
/// The file is marked with an application_id and a schema version (user_version). An older schema
/// is migrated on opening; a newer one, and a file that is not a catalog, is refused.
///
/// Statistics take most of it: 64 MB for a million blocks of an expert, 24 MB for a million of a
/// base, and some 1 KiB for each tensor.
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

/// A set of statistics: of the deltas of one expert from one base, in blocks of one size.
struct StatisticsId {
  std::string base;    ///< id of a registered model
  std::string expert;  ///< likewise
  uint64_t block_size = 0;
  uint64_t stride = 0;  ///< 0: exact; n: from a probe of every n-th block

  bool operator==(const StatisticsId&) const = default;
};

/// Of one tensor: its position in the base's layout, and its blocks (those that were probed).
struct TensorBlockStatistics {
  uint32_t tensor = 0;
  std::vector<BlockStatistics> blocks;
  bool operator==(const TensorBlockStatistics&) const = default;
};
struct BaseTensorBlockStatistics {
  uint32_t tensor = 0;
  std::vector<BaseBlockStatistics> blocks;
  bool operator==(const BaseTensorBlockStatistics&) const = default;
};

/// What is put into the catalog together.
struct StatisticsBatch {
  struct Set {
    StatisticsId id;
    std::vector<TensorBlockStatistics> tensors;
  };
  std::vector<Set> sets;
  std::string base;  ///< of `base_tensors`
  uint64_t block_size = 0;
  std::vector<BaseTensorBlockStatistics> base_tensors;
  std::vector<const ModelRecord*> models;  ///< base and experts as they were read
};

/// For one thread at a time. The subject of an error is the catalog's path, or a model where that
/// is said; any call may find the file damaged (kBadInput), locked by another process (kIo), or not
/// writable (kIo). For a lock, opening and reading wait up to 5 s, and the calls that write up to
/// 60 s: what they bring may have taken hours to read. A record that is found is what was put, or
/// an error; damage can hide one, or change an id in a list.
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
  /// Adds models, or replaces those with the same ids, all in one transaction. Statistics of a
  /// replaced model are dropped, as base and as expert, unless it looks unchanged (LooksUnchanged)
  /// and has the same fingerprint.
  /// kBadInput, with the model as subject, if its id is that of a model with another path: another
  /// process may have registered that since this one found the id free. Nothing is stored then.
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

  /// Adds the tensors to the sets, replacing those that are there, in one transaction. `models` has
  /// a record of every model that the batch names (kInternal if not; others are ignored), and each
  /// must still be registered as it was read: same id and path, same fingerprint, and it looks
  /// unchanged (LooksUnchanged). kBadInput, with the model as subject, if one is not: the
  /// statistics are of other weights. Nothing is stored then.
  virtual Status PutStatistics(const StatisticsBatch& batch) = 0;
  /// Positions of the tensors that a set has, ascending; empty if there is no such set.
  virtual Result<std::vector<uint32_t>> StatisticsTensors(const StatisticsId& id) = 0;
  virtual Result<std::vector<uint32_t>> BaseStatisticsTensors(const std::string& base,
                                                              uint64_t block_size) = 0;
  /// Nothing if the set does not have the tensor.
  virtual Result<std::optional<std::vector<BlockStatistics>>> ReadStatistics(const StatisticsId& id,
                                                                             uint32_t tensor) = 0;
  virtual Result<std::optional<std::vector<BaseBlockStatistics>>> ReadBaseStatistics(
      const std::string& base, uint64_t block_size, uint32_t tensor) = 0;
  /// Forgets all statistics of one expert from one base, of every block size.
  virtual Status DropStatistics(const std::string& base, const std::string& expert) = 0;

  /// Reads the whole file: its structure and every record. kBadInput says what is damaged first.
  virtual Status CheckIntegrity() = 0;
};

/// The newest schema that this program knows; a catalog that is open has it.
int64_t CatalogSchemaVersion();

/// Those that this layer uses.
std::vector<Library> CatalogLibraries();

}  // namespace mergepipe
