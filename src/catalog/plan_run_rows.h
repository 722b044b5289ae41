#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "catalog/sqlite.h"
#include "mergepipe/base/error.h"
#include "mergepipe/catalog/catalog.h"

namespace mergepipe {

struct PlanRow {
  std::string plan_id;
  std::string plan_hash;
  std::string json;

  bool operator==(const PlanRow&) const = default;
};

Result<std::optional<PlanRow>> ReadPlanRow(Connection& connection, const std::string& plan_id);
/// The plan in that row, whatever the index says; to read damaged files.
Result<std::optional<PlanRow>> ReadPlanAt(Connection& connection, int64_t key);
/// Fails if there is a plan with that id.
Status WritePlanRow(Connection& connection, const PlanRow& plan);

enum class RunKey { kId, kOutput };

/// The run with that id, or the newest of those with that output path.
Result<std::optional<RunRecord>> ReadRunRow(Connection& connection, RunKey key,
                                            const std::string& value);
/// The run in that row, whatever the indexes say; to read damaged files.
Result<std::optional<RunRecord>> ReadRunAt(Connection& connection, int64_t key);
/// Adds a run, or replaces the one with that id.
Status WriteRunRow(Connection& connection, const RunRecord& run);

}  // namespace mergepipe
