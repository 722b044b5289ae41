#include "catalog/plan_run_rows.h"

#include <string_view>
#include <utility>

#include "catalog/checksum.h"
#include "catalog/row_reader.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

std::string PlanChecksum(const PlanRow& plan) {
  Checksum sum;
  sum << plan.plan_id << plan.plan_hash << plan.json;
  return sum.ToHex();
}

std::string RunChecksum(const RunRecord& run) {
  Checksum sum;
  sum << run.run_id << run.plan_id << run.plan_hash << run.model_id << run.output_path
      << run.run_directory << run.manifest_hash << run.finished_at;
  return sum.ToHex();
}

}  // namespace

Result<std::optional<PlanRow>> ReadPlanRow(Connection& connection, const std::string& plan_id) {
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement rows, connection.Prepare("SELECT plan_id, plan_hash, json, checksum FROM plans "
                                         "WHERE plan_id = ?1"));
  rows.Bind(plan_id);
  MERGEPIPE_ASSIGN_OR_RETURN(const bool found, rows.Step());
  if (!found) return std::nullopt;
  RowReader row(connection, rows, "plan " + Quote(plan_id));
  PlanRow plan;
  plan.plan_id = row.Text();
  plan.plan_hash = row.Text();
  plan.json = row.Text();
  if (row.Text() != PlanChecksum(plan) || plan.plan_id != plan_id) row.Reject("checksum");
  MERGEPIPE_RETURN_IF_ERROR(row.status());
  return std::optional(std::move(plan));
}

Status WritePlanRow(Connection& connection, const PlanRow& plan) {
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement insert,
      connection.Prepare(
          "INSERT INTO plans (plan_id, plan_hash, json, checksum) VALUES (?1, ?2, ?3, ?4)"));
  insert.Bind(plan.plan_id, plan.plan_hash, plan.json, PlanChecksum(plan));
  return insert.Run();
}

Result<std::optional<RunRecord>> ReadRunRow(Connection& connection, RunKey key,
                                            const std::string& value) {
  constexpr std::string_view kColumns =
      "SELECT run_id, plan_id, plan_hash, model_id, output_path, run_directory, manifest_hash, "
      "finished_at, checksum FROM runs ";
  const std::string_view condition =
      key == RunKey::kId ? "WHERE run_id = ?1"
                         : "WHERE output_path = ?1 ORDER BY finished_at DESC, key DESC LIMIT 1";
  MERGEPIPE_ASSIGN_OR_RETURN(Statement rows,
                             connection.Prepare(std::string(kColumns).append(condition)));
  rows.Bind(value);
  MERGEPIPE_ASSIGN_OR_RETURN(const bool found, rows.Step());
  if (!found) return std::nullopt;
  RowReader row(connection, rows, "run " + Quote(value));
  RunRecord run;
  for (std::string* field :
       {&run.run_id, &run.plan_id, &run.plan_hash, &run.model_id, &run.output_path,
        &run.run_directory, &run.manifest_hash, &run.finished_at}) {
    *field = row.Text();
  }
  const bool asked_for = (key == RunKey::kId ? run.run_id : run.output_path) == value;
  if (row.Text() != RunChecksum(run) || !asked_for) row.Reject("checksum");
  MERGEPIPE_RETURN_IF_ERROR(row.status());
  return std::optional(std::move(run));
}

Status WriteRunRow(Connection& connection, const RunRecord& run) {
  // An update keeps the key, and so the run's place among those that finished in the same second.
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement insert,
      connection.Prepare(
          "INSERT INTO runs (run_id, plan_id, plan_hash, model_id, output_path, run_directory, "
          "manifest_hash, finished_at, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) "
          "ON CONFLICT (run_id) DO UPDATE SET plan_id = ?2, plan_hash = ?3, model_id = ?4, "
          "output_path = ?5, run_directory = ?6, manifest_hash = ?7, finished_at = ?8, "
          "checksum = ?9"));
  insert.Bind(run.run_id, run.plan_id, run.plan_hash, run.model_id, run.output_path,
              run.run_directory, run.manifest_hash, run.finished_at, RunChecksum(run));
  return insert.Run();
}

}  // namespace mergepipe
