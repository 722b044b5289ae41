#include "cli/command.h"
#include "cli/merge_arguments.h"
#include "cli/render.h"
#include "mergepipe/base/log.h"

namespace mergepipe {
namespace {

void PrintWarnings(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) LogWarning(warning);
}

struct MergeCommand {
  MergeArguments arguments;
  bool dry_run = false;
  bool json = false;

  Status RunPlan(CommandContext& context) const {
    MERGEPIPE_ASSIGN_OR_RETURN(const MergeOptions options, arguments.ToOptions());
    MERGEPIPE_ASSIGN_OR_RETURN(const PlannedMerge planned, PlanMerge(*context.files, options));
    PrintWarnings(planned.warnings);
    Print(json ? planned.plan_text : RenderPlan(planned));
    return {};
  }

  Status RunMergeCommand(CommandContext& context) const {
    MERGEPIPE_ASSIGN_OR_RETURN(MergeOptions options, arguments.ToOptions());
    options.command_line = context.command_line;
    if (dry_run) {
      return context.communicator->Agree(context.communicator->is_root() ? RunPlan(context)
                                                                         : Status());
    }
    MERGEPIPE_ASSIGN_OR_RETURN(const MergeOutcome outcome,
                               RunMerge(*context.files, *context.communicator, options));
    if (!context.communicator->is_root()) return {};
    PrintWarnings(outcome.warnings);
    for (const RankIo& rank : outcome.manifest.by_rank) LogInfo(DescribeRank(rank));
    Print(json ? RenderMergeJson(options, outcome) : RenderMerge(options, outcome));
    return {};
  }
};

struct ReplayCommand {
  ReplayOptions options;
  LimitArguments limits;

  Status Run(CommandContext& context) const {
    ReplayOptions replay = options;
    replay.limits = limits.ToLimits();
    replay.command_line = context.command_line;
    MERGEPIPE_ASSIGN_OR_RETURN(const MergeOutcome outcome,
                               RunReplay(*context.files, *context.communicator, replay));
    if (!context.communicator->is_root()) return {};
    PrintWarnings(outcome.warnings);
    Print(OkLine(replay.target.directory, outcome));
    Print("     every hash is that of run " + replay.run + "\n");
    return {};
  }
};

}  // namespace

RunCommand AddMerge(CLI::App& app) {
  const auto command = std::make_shared<MergeCommand>();
  command->arguments.Add(app, true);
  app.add_flag("--dry-run", command->dry_run,
               "plan only: print what would be read, and write nothing to --out");
  app.add_flag("--json", command->json, "print the result (with --dry-run: the plan) as JSON");
  return [command](CommandContext& context) { return command->RunMergeCommand(context); };
}

RunCommand AddPlan(CLI::App& app) {
  const auto command = std::make_shared<MergeCommand>();
  command->arguments.Add(app, false);
  app.add_flag("--json", command->json, "print plan.json");
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
  AddCatalogOption(app, options.catalog);
  AddRunsOption(app, options.target.runs_directory);
  command->limits.Add(app);
  return [command](CommandContext& context) { return command->Run(context); };
}

}  // namespace mergepipe
