#include <algorithm>
#include <charconv>

#include "cli/command.h"
#include "cli/merge_arguments.h"
#include "cli/progress.h"
#include "cli/render.h"
#include "cli/start_line.h"
#include "cli/stop_signal.h"
#include "mergepipe/base/log.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

void PrintWarnings(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) LogWarning(warning);
}

// "5,10,25": percentages above 0 and up to 100.
Result<std::vector<double>> ParsePercents(const std::string& text) {
  std::vector<double> percents;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    double percent = 0;
    const auto [rest, error] = std::from_chars(text.data() + begin, text.data() + end, percent);
    const bool good = error == std::errc() && rest == text.data() + end;
    if (!good || !(percent > 0 && percent <= 100)) {
      return Fail(ErrorKind::kUsage, "--sweep", Quote(text) + " is not a list of percentages",
                  "give numbers above 0 and up to 100, as 5,10,25,50,100");
    }
    percents.push_back(percent);
    begin = end + 1;
  }
  return percents;
}

struct MergeCommand {
  MergeArguments arguments;
  bool dry_run = false;
  bool json = false;
  std::string sweep;
  CLI::Option* sweep_option = nullptr;
  double bandwidth = 1000;  ///< MiB/s

  Status RunSweep(CommandContext& context, const MergeOptions& options) const {
    MERGEPIPE_ASSIGN_OR_RETURN(const std::vector<double> percents, ParsePercents(sweep));
    if (!context.communicator->is_root()) return {};
    MERGEPIPE_ASSIGN_OR_RETURN(const std::vector<SweepPoint> points,
                               SweepMerge(*context.files, options, percents));
    Print(json ? RenderSweepJson(points) : RenderSweep(options.plan, points));
    return {};
  }

  Status RunPlan(CommandContext& context) const {
    MERGEPIPE_ASSIGN_OR_RETURN(const MergeOptions options, arguments.ToOptions());
    if (sweep_option != nullptr && sweep_option->count() > 0)
      return context.communicator->Agree(RunSweep(context, options));
    MERGEPIPE_ASSIGN_OR_RETURN(const PlannedMerge planned,
                               PlanMerge(*context.files, *context.communicator, options));
    if (!context.communicator->is_root()) return {};
    PrintWarnings(planned.warnings);
    Print(json ? planned.plan_text : RenderPlan(planned, options.target.form, bandwidth));
    return {};
  }

  Status RunMergeCommand(CommandContext& context) const {
    if (dry_run) return RunPlan(context);
    MERGEPIPE_ASSIGN_OR_RETURN(MergeOptions options, arguments.ToOptions());
    options.command_line = context.command_line;
    ProgressPrinter progress(ParseProgressStyle(arguments.limits.progress), "merging");
    options.limits.progress = &progress;
    StopOnSignals();
    MERGEPIPE_RETURN_IF_ERROR(AnnounceStart(*context.communicator, options.limits.threads));
    MERGEPIPE_ASSIGN_OR_RETURN(const MergeOutcome outcome,
                               RunMerge(*context.files, *context.communicator, options));
    if (!context.communicator->is_root()) return {};
    PrintWarnings(outcome.warnings);
    for (const RankIo& rank : outcome.manifest.by_rank) LogInfo(DescribeRank(rank));
    if (options.allow_empty && outcome.manifest.io.expert_bytes_read == 0)
      LogWarning("nothing was read: the output is a copy of the base");
    Print(json ? RenderMergeJson(options.target.directory, outcome)
               : RenderMerge(options, outcome));
    return {};
  }
};

struct ReplayCommand {
  ReplayOptions options;
  LimitArguments limits;
  GatherArgument gather;

  Status Run(CommandContext& context) const {
    ReplayOptions replay = options;
    replay.limits = limits.ToLimits();
    replay.target.gather = gather.Mode();
    ProgressPrinter progress(ParseProgressStyle(limits.progress), "merging");
    replay.limits.progress = &progress;
    replay.command_line = context.command_line;
    StopOnSignals();
    MERGEPIPE_RETURN_IF_ERROR(AnnounceStart(*context.communicator, replay.limits.threads));
    MERGEPIPE_ASSIGN_OR_RETURN(const MergeOutcome outcome,
                               RunReplay(*context.files, *context.communicator, replay));
    if (!context.communicator->is_root()) return {};
    PrintWarnings(outcome.warnings);
    Print(OkLine(replay.target.directory, outcome));
    Print("     every hash is that of run " + replay.run + "\n");
    return {};
  }
};

void AddBandwidthOption(CLI::App& app, double& bandwidth) {
  app.add_option("--bandwidth", bandwidth,
                 "MiB/s of reading and writing, for the time that a plan estimates")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 1e9));
}

}  // namespace

RunCommand AddMerge(CLI::App& app) {
  const auto command = std::make_shared<MergeCommand>();
  command->arguments.Add(app, true);
  app.add_flag(
      "--dry-run", command->dry_run,
      "plan only: print what would be read, and write nothing to --out; may read samples of "
      "the experts for its scores (see --analyze)");
  AddBandwidthOption(app, command->bandwidth);
  app.add_flag("--json", command->json, "print the result (with --dry-run: the plan) as JSON");
  return [command](CommandContext& context) { return command->RunMergeCommand(context); };
}

RunCommand AddPlan(CLI::App& app) {
  const auto command = std::make_shared<MergeCommand>();
  command->arguments.Add(app, false);
  command->sweep_option = app.add_option(
      "--sweep", command->sweep,
      "compare budgets of so many percent of the expert bytes (5,10,25,50,100), from the catalog "
      "alone");
  command->sweep_option->excludes("--io-budget-mb")->excludes("--no-budget");
  AddBandwidthOption(app, command->bandwidth);
  app.add_flag("--json", command->json, "print plan.json (with --sweep: the points)");
  return [command](CommandContext& context) { return command->RunPlan(context); };
}

RunCommand AddReplay(CLI::App& app) {
  const auto command = std::make_shared<ReplayCommand>();
  ReplayOptions& options = command->options;
  app.add_option("run", options.run, "run id, run folder, or the output of a run")->required();
  app.add_option("--out", options.target.directory, "output directory")->required();
  app.add_option("--base", options.inputs.base, "path of the base [the registered one]");
  app.add_option("--experts", options.inputs.experts,
                 "paths of all experts, in the run's order [the registered ones]");
  app.add_option("--model-id", options.target.model_id,
                 "the output's name in the catalog [the directory's name]");
  app.add_flag("--overwrite", options.target.overwrite, "replace an earlier output at --out");
  AddNoResumeOption(app, options.target.resume);
  AddCatalogOption(app, options.catalog);
  AddRunsOption(app, options.target.runs_directory);
  command->gather.Add(app, "Options");
  command->limits.Add(app);
  return [command](CommandContext& context) { return command->Run(context); };
}

}  // namespace mergepipe
