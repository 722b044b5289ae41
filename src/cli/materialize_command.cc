#include <fmt/format.h>

#include "cli/command.h"
#include "cli/merge_arguments.h"
#include "cli/progress.h"
#include "cli/render.h"
#include "cli/stop_signal.h"
#include "mergepipe/base/log.h"
#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"
#include "mergepipe/run/materialize.h"

namespace mergepipe {
namespace {

std::string Render(const MaterializeOptions& options, const MergeOutcome& outcome) {
  const IoCounts& io = outcome.manifest.io;
  return fmt::format(
      "[OK] materialized {} -> {} | run={} | plan={:.2f}s exec={:.1f}s\n"
      "     base {} read, {} written in {} files\n",
      EscapeControl(options.sparse), EscapeControl(options.target.directory), outcome.run_directory,
      outcome.plan_seconds, outcome.exec_seconds, FormatBytes(Bytes(io.base_bytes_read)),
      FormatBytes(Bytes(io.output_bytes_written)), outcome.manifest.files.size());
}

struct MaterializeCommand {
  MaterializeOptions options;
  LimitArguments limits;
  GatherArgument gather;
  bool json = false;

  Status Run(CommandContext& context) const {
    MaterializeOptions chosen = options;
    chosen.limits = limits.ToLimits();
    chosen.target.gather = gather.Mode();
    ProgressPrinter progress(ParseProgressStyle(limits.progress), "materializing");
    chosen.limits.progress = &progress;
    StopOnSignals();
    chosen.command_line = context.command_line;
    MERGEPIPE_ASSIGN_OR_RETURN(const MergeOutcome outcome,
                               RunMaterialize(*context.files, *context.communicator, chosen));
    if (!context.communicator->is_root()) return {};
    for (const std::string& warning : outcome.warnings) LogWarning(warning);
    Print(json ? RenderMergeJson(chosen.target.directory, outcome) : Render(chosen, outcome));
    return {};
  }
};

}  // namespace

RunCommand AddMaterialize(CLI::App& app) {
  const auto command = std::make_shared<MaterializeCommand>();
  MaterializeOptions& options = command->options;
  app.add_option("sparse", options.sparse, "directory of a sparse output, or the id of its run")
      ->required();
  app.add_option("--out", options.target.directory, "output directory")->required();
  app.add_option("--base", options.base,
                 "the base of the merge: a registered id, or a path [the one of the plan]");
  app.add_option("--model-id", options.target.model_id,
                 "the output's name in the catalog [the directory's name]");
  app.add_flag("--overwrite", options.target.overwrite, "replace an earlier output at --out");
  AddNoResumeOption(app, options.target.resume);
  app.add_flag("--json", command->json, "print the result as JSON");
  AddCatalogOption(app, options.catalog);
  AddRunsOption(app, options.target.runs_directory);
  command->gather.Add(app, "Options");
  command->limits.Add(app);
  return [command](CommandContext& context) { return command->Run(context); };
}

}  // namespace mergepipe
