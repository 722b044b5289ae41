#include "catalog/statistics_models.h"

#include <set>
#include <string>

#include "catalog/model_rows.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

std::set<std::string> NamedModels(const StatisticsBatch& batch) {
  std::set<std::string> ids;
  for (const StatisticsBatch::Set& set : batch.sets) {
    ids.insert(set.id.base);
    ids.insert(set.id.expert);
  }
  if (!batch.base_tensors.empty()) ids.insert(batch.base);
  return ids;
}

Status CheckModel(Connection& connection, const std::string& id, const StatisticsBatch& batch) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto stored, ReadModelRows(connection, ModelKey::kId, id));
  bool has_record = false;
  for (const ModelRecord* model : batch.models) {
    if (model->id != id) continue;
    has_record = true;
    if (stored && stored->layout.path == model->layout.path && SameWeights(*stored, *model)) {
      continue;
    }
    return Fail(ErrorKind::kBadInput, "model " + Quote(id),
                "was registered anew, or as another model, while it was read",
                "run the same command again");
  }
  if (has_record) return {};
  return Fail(ErrorKind::kInternal, connection.subject(),
              "statistics came without the record of their model " + Quote(id));
}

}  // namespace

Status CheckStatisticsModels(Connection& connection, const StatisticsBatch& batch) {
  for (const std::string& id : NamedModels(batch)) {
    MERGEPIPE_RETURN_IF_ERROR(CheckModel(connection, id, batch));
  }
  return {};
}

}  // namespace mergepipe
