#include "mergepipe/catalog/salvage.h"

#include <optional>
#include <set>
#include <utility>

#include "catalog/catalog_file.h"
#include "catalog/damaged_table.h"
#include "catalog/model_rows.h"
#include "catalog/open_catalog.h"
#include "catalog/plan_run_rows.h"
#include "catalog/row_reader.h"
#include "catalog/schema.h"
#include "catalog/sqlite.h"
#include "catalog/statistics_rows.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

// Of blocks that are put at once.
constexpr size_t kMostBlocks = size_t{1} << 19;

/// A set of statistics with its models as the damaged catalog has them.
struct SavedSet {
  StatisticsSet set;
  std::vector<ModelRecord> models;  // the base, then the expert if there is one
};

/// So that no two sets have the same description.
std::string DescribeFully(const StatisticsSet& set) {
  const std::string how =
      set.stride == 0 ? "exact" : "probed with stride " + std::to_string(set.stride);
  return Describe(set) + " in blocks of " + std::to_string(set.block_size) + ", " + how;
}

const std::string& IdOf(const ModelRecord& model) { return model.id; }
const std::string& IdOf(const PlanRow& plan) { return plan.plan_id; }
const std::string& IdOf(const RunRecord& run) { return run.run_id; }

class SqliteDamagedCatalog final : public DamagedCatalog {
 public:
  SqliteDamagedCatalog(std::unique_ptr<Connection> connection, Transaction lock)
      : connection_(std::move(connection)), lock_(std::move(lock)) {}

  Result<Salvage> CopyTo(Catalog* into) override {
    Salvage salvage;
    MERGEPIPE_RETURN_IF_ERROR(CopyModels(into, salvage));
    salvage.lost_models = salvage.lost.size();
    MERGEPIPE_RETURN_IF_ERROR(CopyPlans(into, salvage));
    MERGEPIPE_RETURN_IF_ERROR(CopyRuns(into, salvage));
    MERGEPIPE_RETURN_IF_ERROR(CopyStatistics(into, salvage));
    return salvage;
  }

 private:
  /// Gives each record that `read` finds to `keep`, and its id to `saved`.
  template <typename Read, typename Keep>
  Status CopyRows(const TableName& name, const std::string& kind, const Read& read,
                  const Keep& keep, std::vector<std::string>& saved, Salvage& salvage) {
    DamagedTable table = LookAt(*connection_, name);
    std::set<std::string> seen;
    for (const int64_t key : table.keys) {
      auto record = read(*connection_, key);
      if (!record || !*record) continue;
      const std::string& id = IdOf(**record);
      table.ids.erase(id);
      if (!seen.insert(id).second) {
        // Of a page that came back from before: the ids in a table are distinct.
        salvage.lost.push_back("a second " + kind + " " + Quote(id));
        continue;
      }
      saved.push_back(id);
      MERGEPIPE_RETURN_IF_ERROR(keep(key, *std::move(*record)));
    }
    for (const std::string& id : table.ids) salvage.lost.push_back(kind + " " + Quote(id));
    if (!table.complete) {
      salvage.lost.push_back("perhaps other " + kind + "s: a part of their table cannot be read");
    }
    return {};
  }

  Status CopyModels(Catalog* into, Salvage& salvage) {
    const auto keep = [&](int64_t key, ModelRecord model) -> Status {
      models_.insert(key);
      return into != nullptr ? into->PutModels({std::move(model)}) : Status();
    };
    return CopyRows({"models", "key", "id"}, "model", ReadModelAt, keep, salvage.models, salvage);
  }

  Status CopyPlans(Catalog* into, Salvage& salvage) {
    const auto keep = [&](int64_t, const PlanRow& plan) -> Status {
      return into != nullptr ? into->PutPlan(plan.plan_id, plan.plan_hash, plan.json) : Status();
    };
    return CopyRows({"plans", "rowid", "plan_id"}, "plan", ReadPlanAt, keep, salvage.plans,
                    salvage);
  }

  Status CopyRuns(Catalog* into, Salvage& salvage) {
    const auto keep = [&](int64_t, const RunRecord& run) -> Status {
      return into != nullptr ? into->PutRun(run) : Status();
    };
    return CopyRows({"runs", "key", "run_id"}, "run", ReadRunAt, keep, salvage.runs, salvage);
  }

  Status CopyStatistics(Catalog* into, Salvage& salvage) {
    if (!HasStatistics()) return {};
    const DamagedTable table = LookAt(*connection_, {"statistics_sets", "key", ""});
    uint64_t unreadable = 0;
    for (const int64_t key : table.keys) {
      const auto saved = ReadSet(key);
      if (!saved) ++unreadable;
      if (!saved || !*saved) continue;
      if ((*saved)->set.expert) {
        MERGEPIPE_RETURN_IF_ERROR(CopySet<BlockStatistics>(key, **saved, into, salvage));
      } else {
        MERGEPIPE_RETURN_IF_ERROR(CopySet<BaseBlockStatistics>(key, **saved, into, salvage));
      }
    }
    if (!table.complete) {
      salvage.lost.emplace_back("perhaps other statistics: a part of their table cannot be read");
    } else if (unreadable > 0) {
      salvage.lost.push_back(std::to_string(unreadable) +
                             " sets of statistics: what they are of cannot be read");
    }
    return {};
  }

  /// Whether the file is of a schema with statistics.
  bool HasStatistics() {
    const auto version = connection_->QueryInteger("PRAGMA user_version");
    return !version || *version != 1;
  }

  /// A model that was saved; nothing can be put of another one.
  Result<ModelRecord> ReadSaved(int64_t key) {
    if (models_.count(key) != 0) {
      MERGEPIPE_ASSIGN_OR_RETURN(auto model, ReadModelAt(*connection_, key));
      if (model) return *std::move(model);
    }
    return Fail(connection_->Damaged("a set of statistics is of no model"));
  }

  Result<std::optional<SavedSet>> ReadSet(int64_t key) {
    MERGEPIPE_ASSIGN_OR_RETURN(
        Statement rows,
        connection_->Prepare("SELECT base, expert IS NOT NULL, coalesce(expert, base), block_size, "
                             "stride FROM statistics_sets WHERE key = ?1"));
    rows.Bind(key);
    MERGEPIPE_ASSIGN_OR_RETURN(const bool found, rows.Step());
    if (!found) return std::nullopt;
    RowReader row(*connection_, rows, "set of statistics " + std::to_string(key));
    const int64_t base = row.Signed();
    const bool has_expert = row.Flag();
    const int64_t expert = row.Signed();
    const uint64_t block_size = row.Unsigned();
    const uint64_t stride = row.Unsigned();
    MERGEPIPE_RETURN_IF_ERROR(row.status());
    SavedSet saved;
    for (const int64_t model : {base, expert}) {
      MERGEPIPE_ASSIGN_OR_RETURN(ModelRecord record, ReadSaved(model));
      saved.models.push_back(std::move(record));
      if (!has_expert) break;
    }
    const std::string& base_id = saved.models.front().id;
    saved.set = has_expert
                    ? StatisticsSet::Of({base_id, saved.models.back().id, block_size, stride})
                    : StatisticsSet::OfBase(base_id, block_size);
    return saved;
  }

  template <typename Block>
  Status CopySet(int64_t key, const SavedSet& saved, Catalog* into, Salvage& salvage) {
    const StatisticsSet& set = saved.set;
    StatisticsBatch batch = EmptyBatch(saved);
    size_t blocks = 0;
    uint64_t lost = 0;
    const auto tensors = static_cast<uint32_t>(saved.models.front().layout.tensors.size());
    for (uint32_t tensor = 0; tensor < tensors; ++tensor) {
      auto found = ReadStatisticsAt<Block>(*connection_, key, set, tensor);
      if (!found) ++lost;
      if (!found || !*found) continue;
      ++salvage.statistics;
      if (into == nullptr) continue;
      blocks += (*found)->size();
      Add(batch, tensor, **std::move(found));
      if (blocks < kMostBlocks) continue;
      MERGEPIPE_RETURN_IF_ERROR(into->PutStatistics(batch));
      batch = EmptyBatch(saved);
      blocks = 0;
    }
    if (lost > 0) {
      salvage.lost.push_back(DescribeFully(set) + ": of up to " + std::to_string(lost) +
                             " tensors");
    }
    return into != nullptr ? into->PutStatistics(batch) : Status();
  }

  static StatisticsBatch EmptyBatch(const SavedSet& saved) {
    const StatisticsSet& set = saved.set;
    StatisticsBatch batch;
    batch.base = set.base;
    batch.block_size = set.block_size;
    if (set.expert) {
      batch.sets.push_back({{set.base, *set.expert, set.block_size, set.stride}, {}});
    }
    for (const ModelRecord& model : saved.models) batch.models.push_back(&model);
    return batch;
  }
  static void Add(StatisticsBatch& batch, uint32_t tensor, std::vector<BlockStatistics> blocks) {
    batch.sets[0].tensors.push_back({tensor, std::move(blocks)});
  }
  static void Add(StatisticsBatch& batch, uint32_t tensor,
                  std::vector<BaseBlockStatistics> blocks) {
    batch.base_tensors.push_back({tensor, std::move(blocks)});
  }

  std::unique_ptr<Connection> connection_;
  Transaction lock_;
  std::set<int64_t> models_;  // the keys of those that were saved
};

/// With a write lock sqlite3 corrects the length in the header of a cut file, which begins a
/// journal; on rollback it would delete what then has the journal's name. The statement fails while
/// a damaged schema is read, but not once that was tried.
Status KeepJournalInMemory(Connection& connection) {
  constexpr auto kStatement = "PRAGMA journal_mode = MEMORY";
  auto mode = connection.QueryText(kStatement);
  if (!mode) mode = connection.QueryText(kStatement);
  if (!mode) return Fail(mode.error());
  if (*mode == "memory") return {};
  return Fail(ErrorKind::kIo, connection.subject(),
              "is in journal mode '" + *mode + "', which cannot be changed now",
              "close the other programs that use it");
}

/// Takes the lock that a transaction of that kind has until it ends.
Result<Transaction> Lock(Connection& connection, DamagedCatalog::Purpose purpose) {
  if (purpose == DamagedCatalog::Purpose::kLook) {
    return Transaction::Begin(connection, Transaction::Mode::kRead);
  }
  MERGEPIPE_RETURN_IF_ERROR(KeepJournalInMemory(connection));
  return Transaction::Begin(connection, Transaction::Mode::kWrite);
}

}  // namespace

Result<std::unique_ptr<DamagedCatalog>> DamagedCatalog::Open(const std::string& path,
                                                             Purpose purpose) {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool exists, CatalogFileExists(path));
  if (!exists) return Fail(ErrorKind::kBadInput, path, "there is no such catalog");
  MERGEPIPE_ASSIGN_OR_RETURN(auto connection, OpenDamagedFile(path, kBusyTimeout));
  MERGEPIPE_ASSIGN_OR_RETURN(Transaction lock, Lock(*connection, purpose));
  MERGEPIPE_RETURN_IF_ERROR(CheckIsCatalog(*connection));
  return std::make_unique<SqliteDamagedCatalog>(std::move(connection), std::move(lock));
}

}  // namespace mergepipe
