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

Result<Statement> SelectPlan(Connection& connection, std::string_view condition) {
  return connection.Prepare(
      std::string("SELECT plan_id, plan_hash, json, checksum FROM plans WHERE ").append(condition));
}

/// The plan in the first row. `place` names it in errors.
Result<std::optional<PlanRow>> ReadSelectedPlan(const Connection& connection, Statement& rows,
                                                const std::string& place) {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool found, rows.Step());
  if (!found) return std::nullopt;
  RowReader row(connection, rows, "plan " + Quote(place));
  PlanRow plan;
  plan.plan_id = row.Text();
  plan.plan_hash = row.Text();
  plan.json = row.Text();
  if (row.Text() != PlanChecksum(plan)) row.Reject("checksum");
  MERGEPIPE_RETURN_IF_ERROR(row.status());
  return std::optional(std::move(plan));
}

Result<Statement> SelectRun(Connection& connection, std::string_view condition) {
  constexpr std::string_view kColumns =
      "SELECT run_id, plan_id, plan_hash, model_id, output_path, run_directory, manifest_hash, "
      "finished_at, checksum FROM runs WHERE ";
  return connection.Prepare(std::string(kColumns).append(condition));
}

Result<std::optional<RunRecord>> ReadSelectedRun(const Connection& connection, Statement& rows,
                                                 const std::string& place) {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool found, rows.Step());
  if (!found) return std::nullopt;
  RowReader row(connection, rows, "run " + Quote(place));
  RunRecord run;
  for (std::string* field :
       {&run.run_id, &run.plan_id, &run.plan_hash, &run.model_id, &run.output_path,
        &run.run_directory, &run.manifest_hash, &run.finished_at}) {
    *field = row.Text();
  }
  if (row.Text() != RunChecksum(run)) row.Reject("checksum");
  MERGEPIPE_RETURN_IF_ERROR(row.status());
  return std::optional(std::move(run));
}

/// For what is whole in itself and is not what was asked for: a damaged index led to it.
Error WrongRow(const Connection& connection, const std::string& place) {
  return connection.Damaged(place + ": not a valid checksum");
}

}  // namespace

Result<std::optional<PlanRow>> ReadPlanRow(Connection& connection, const std::string& plan_id) {
  MERGEPIPE_ASSIGN_OR_RETURN(Statement rows, SelectPlan(connection, "plan_id = ?1"));
  rows.Bind(plan_id);
  MERGEPIPE_ASSIGN_OR_RETURN(auto plan, ReadSelectedPlan(connection, rows, plan_id));
  if (plan && plan->plan_id != plan_id) return Fail(WrongRow(connection, "plan " + Quote(plan_id)));
  return plan;
}

Result<std::optional<PlanRow>> ReadPlanAt(Connection& connection, int64_t key) {
  MERGEPIPE_ASSIGN_OR_RETURN(Statement rows, SelectPlan(connection, "rowid = ?1"));
  rows.Bind(key);
  return ReadSelectedPlan(connection, rows, std::to_string(key));
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
  const bool by_id = key == RunKey::kId;
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement rows,
      SelectRun(connection, by_id
                                ? "run_id = ?1"
                                : "output_path = ?1 ORDER BY finished_at DESC, key DESC LIMIT 1"));
  rows.Bind(value);
  MERGEPIPE_ASSIGN_OR_RETURN(auto run, ReadSelectedRun(connection, rows, value));
  if (run && (by_id ? run->run_id : run->output_path) != value) {
    return Fail(WrongRow(connection, "run " + Quote(value)));
  }
  return run;
}

Result<std::optional<RunRecord>> ReadRunAt(Connection& connection, int64_t key) {
  MERGEPIPE_ASSIGN_OR_RETURN(Statement rows, SelectRun(connection, "key = ?1"));
  rows.Bind(key);
  return ReadSelectedRun(connection, rows, std::to_string(key));
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
