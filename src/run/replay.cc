#include <chrono>

#include "mergepipe/plan/plan_codec.h"
#include "mergepipe/run/merge.h"
#include "mergepipe/run/records.h"
#include "run/execute.h"
#include "run/staging.h"
#include "run/stored_inputs.h"

namespace mergepipe {
namespace {

Result<ExecuteRequest> PrepareReplay(FileSystem& files, const ReplayOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  ExecuteRequest request;
  request.started_at = TimestampUtc();
  MERGEPIPE_RETURN_IF_ERROR(Staging::CheckOptions(files, options.target));
  MERGEPIPE_ASSIGN_OR_RETURN(
      StoredRun run, LoadRun(files, {options.catalog, options.target.runs_directory}, options.run));
  MERGEPIPE_ASSIGN_OR_RETURN(request.inputs,
                             FindPlannedInputs(files, options.catalog, options.inputs, run.plan));
  MERGEPIPE_RETURN_IF_ERROR(Staging::CheckTarget(files, options.target, request.inputs.Paths()));
  request.planned.plan_hash = PlanHash(run.plan);
  request.planned.plan = std::move(run.plan);
  request.planned.plan_text = std::move(run.plan_text);
  request.planned.read = {{request.inputs.probe_bytes_read, 0}};
  request.planned.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  request.target = options.target;
  request.target.form = run.manifest.output;
  request.catalog = options.catalog;
  request.command_line = options.command_line;
  request.expected = std::move(run.manifest);
  return request;
}

}  // namespace

Result<MergeOutcome> RunReplay(FileSystem& files, Communicator& communicator,
                               const ReplayOptions& options) {
  return ExecuteOnAll(files, communicator, options.target.gather, options.limits,
                      [&] { return PrepareReplay(files, options); });
}

}  // namespace mergepipe
