#include "mergepipe/catalog/catalog.h"

#include <string_view>
#include <utility>

#include "catalog/catalog_file.h"
#include "catalog/model_rows.h"
#include "catalog/open_catalog.h"
#include "catalog/plan_run_rows.h"
#include "catalog/row_reader.h"
#include "catalog/sqlite.h"
#include "catalog/statistics_models.h"
#include "catalog/statistics_rows.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

class SqliteCatalog final : public Catalog {
 public:
  explicit SqliteCatalog(std::unique_ptr<Connection> connection)
      : connection_(std::move(connection)) {}

  Result<std::optional<ModelRecord>> FindModel(const std::string& id) override {
    return ReadModel(ModelKey::kId, id);
  }

  Result<std::optional<ModelRecord>> FindModelByPath(const std::string& path) override {
    return ReadModel(ModelKey::kPath, path);
  }

  Result<std::vector<std::string>> ModelIds() override {
    return ReadTexts("SELECT id FROM models ORDER BY id", "models");
  }

  Status PutModels(const std::vector<ModelRecord>& models) override {
    MERGEPIPE_ASSIGN_OR_RETURN(auto transaction, BeginWrite());
    for (const ModelRecord& model : models) {
      MERGEPIPE_RETURN_IF_ERROR(WriteModelRows(*connection_, model));
    }
    return transaction.Commit();
  }

  Status PutPlan(const std::string& plan_id, const std::string& plan_hash,
                 const std::string& json) override {
    const PlanRow plan{plan_id, plan_hash, json};
    MERGEPIPE_ASSIGN_OR_RETURN(auto transaction, BeginWrite());
    MERGEPIPE_ASSIGN_OR_RETURN(const auto known, ReadPlanRow(*connection_, plan_id));
    if (known) {
      if (*known == plan) return {};
      return Fail(ErrorKind::kInternal, connection_->subject(),
                  "has another plan with the id " + Quote(plan_id));
    }
    MERGEPIPE_RETURN_IF_ERROR(WritePlanRow(*connection_, plan));
    return transaction.Commit();
  }

  Result<std::optional<std::string>> FindPlan(const std::string& plan_id) override {
    MERGEPIPE_ASSIGN_OR_RETURN(auto plan, ReadPlanRow(*connection_, plan_id));
    if (!plan) return std::nullopt;
    return std::optional(std::move(plan->json));
  }

  Status PutRun(const RunRecord& run) override {
    MERGEPIPE_ASSIGN_OR_RETURN(auto transaction, BeginWrite());
    MERGEPIPE_RETURN_IF_ERROR(WriteRunRow(*connection_, run));
    return transaction.Commit();
  }

  Result<std::optional<RunRecord>> FindRun(const std::string& run_id) override {
    return ReadRunRow(*connection_, RunKey::kId, run_id);
  }

  Result<std::optional<RunRecord>> FindRunByOutput(const std::string& output_path) override {
    return ReadRunRow(*connection_, RunKey::kOutput, output_path);
  }

  Result<std::vector<std::string>> RunIds() override {
    return ReadTexts("SELECT run_id FROM runs ORDER BY finished_at, key", "runs");
  }

  Status PutStatistics(const StatisticsBatch& batch) override {
    MERGEPIPE_ASSIGN_OR_RETURN(auto transaction, BeginWrite());
    MERGEPIPE_RETURN_IF_ERROR(CheckStatisticsModels(*connection_, batch));
    for (const StatisticsBatch::Set& set : batch.sets) {
      MERGEPIPE_RETURN_IF_ERROR(WriteSet(StatisticsSet::Of(set.id), set.tensors));
    }
    if (!batch.base_tensors.empty()) {
      MERGEPIPE_RETURN_IF_ERROR(
          WriteSet(StatisticsSet::OfBase(batch.base, batch.block_size), batch.base_tensors));
    }
    return transaction.Commit();
  }

  Result<std::vector<uint32_t>> StatisticsTensors(const StatisticsId& id) override {
    return ReadStatisticsTensors(*connection_, StatisticsSet::Of(id));
  }

  Result<std::vector<uint32_t>> BaseStatisticsTensors(const std::string& base,
                                                      uint64_t block_size) override {
    return ReadStatisticsTensors(*connection_, StatisticsSet::OfBase(base, block_size));
  }

  Result<std::optional<std::vector<BlockStatistics>>> ReadStatistics(const StatisticsId& id,
                                                                     uint32_t tensor) override {
    return ReadStatisticsRows(*connection_, StatisticsSet::Of(id), tensor);
  }

  Result<std::optional<std::vector<BaseBlockStatistics>>> ReadBaseStatistics(
      const std::string& base, uint64_t block_size, uint32_t tensor) override {
    return ReadBaseStatisticsRows(*connection_, StatisticsSet::OfBase(base, block_size), tensor);
  }

  Status DropStatistics(const std::string& base, const std::string& expert) override {
    MERGEPIPE_ASSIGN_OR_RETURN(auto transaction, BeginWrite());
    MERGEPIPE_RETURN_IF_ERROR(DropStatisticsSets(*connection_, base, expert));
    return transaction.Commit();
  }

  Status CheckIntegrity() override {
    MERGEPIPE_ASSIGN_OR_RETURN(const std::string verdict,
                               connection_->QueryText("PRAGMA integrity_check(1)"));
    if (verdict != "ok") return Fail(connection_->Damaged(verdict));
    MERGEPIPE_ASSIGN_OR_RETURN(Statement orphans, connection_->Prepare("PRAGMA foreign_key_check"));
    MERGEPIPE_ASSIGN_OR_RETURN(const bool found, orphans.Step());
    if (found) return Fail(connection_->Damaged("rows of a model that is not there"));
    return CheckRecords();
  }

 private:
  // What is put may be of hours of reading: it is not lost because others write for some seconds.
  Result<Transaction> BeginWrite() {
    return Transaction::Begin(*connection_, Transaction::Mode::kPatientWrite);
  }

  Result<std::optional<ModelRecord>> ReadModel(ModelKey key, const std::string& value) {
    MERGEPIPE_ASSIGN_OR_RETURN(auto transaction,
                               Transaction::Begin(*connection_, Transaction::Mode::kRead));
    return ReadModelRows(*connection_, key, value);
  }

  template <typename TensorStatistics>
  Status WriteSet(const StatisticsSet& set, const std::vector<TensorStatistics>& tensors) {
    MERGEPIPE_ASSIGN_OR_RETURN(const int64_t key, MakeStatisticsSet(*connection_, set));
    for (const TensorStatistics& tensor : tensors) {
      MERGEPIPE_RETURN_IF_ERROR(WriteStatisticsRows(*connection_, key, set, tensor));
    }
    return {};
  }

  Result<std::vector<std::string>> ReadTexts(std::string_view sql, const char* place) {
    MERGEPIPE_ASSIGN_OR_RETURN(Statement rows, connection_->Prepare(sql));
    std::vector<std::string> texts;
    for (;;) {
      MERGEPIPE_ASSIGN_OR_RETURN(const bool more, rows.Step());
      if (!more) return texts;
      RowReader row(*connection_, rows, place);
      texts.push_back(row.Text());
      MERGEPIPE_RETURN_IF_ERROR(row.status());
    }
  }

  /// Reads every record, for the checksums, which sqlite3 does not know.
  Status CheckRecords() {
    MERGEPIPE_ASSIGN_OR_RETURN(auto transaction,
                               Transaction::Begin(*connection_, Transaction::Mode::kRead));
    MERGEPIPE_ASSIGN_OR_RETURN(const auto models, ModelIds());
    for (const std::string& id : models) {
      MERGEPIPE_RETURN_IF_ERROR(ReadModelRows(*connection_, ModelKey::kId, id));
    }
    MERGEPIPE_ASSIGN_OR_RETURN(const auto plans, ReadTexts("SELECT plan_id FROM plans", "plans"));
    for (const std::string& id : plans) {
      MERGEPIPE_RETURN_IF_ERROR(ReadPlanRow(*connection_, id));
    }
    MERGEPIPE_ASSIGN_OR_RETURN(const auto runs, RunIds());
    for (const std::string& id : runs) {
      MERGEPIPE_RETURN_IF_ERROR(ReadRunRow(*connection_, RunKey::kId, id));
    }
    return CheckStatisticsRows(*connection_);
  }

  std::unique_ptr<Connection> connection_;
};

}  // namespace

Result<std::unique_ptr<Catalog>> OpenCatalog(const std::string& path, IfAbsent if_absent,
                                             std::chrono::milliseconds busy_timeout) {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool exists, CatalogFileExists(path));
  if (!exists) {
    switch (if_absent) {
      case IfAbsent::kReturnNull: return nullptr;
      case IfAbsent::kFail:
        return Fail(
            ErrorKind::kBadInput, path, "there is no such catalog",
            "make it with `mergepipe init-db` or `mergepipe register`, or give another --db");
      case IfAbsent::kCreate: MERGEPIPE_RETURN_IF_ERROR(CreateCatalogFile(path, busy_timeout));
    }
  }
  MERGEPIPE_ASSIGN_OR_RETURN(auto connection, OpenCatalogFile(path, busy_timeout));
  return std::make_unique<SqliteCatalog>(std::move(connection));
}

Result<std::unique_ptr<Catalog>> Catalog::Open(const std::string& path) {
  return OpenCatalog(path, IfAbsent::kFail);
}

Result<std::unique_ptr<Catalog>> Catalog::OpenOrCreate(const std::string& path) {
  return OpenCatalog(path, IfAbsent::kCreate);
}

Result<std::unique_ptr<Catalog>> Catalog::OpenIfExists(const std::string& path) {
  return OpenCatalog(path, IfAbsent::kReturnNull);
}

}  // namespace mergepipe
