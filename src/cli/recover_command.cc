#include <fmt/format.h>

#include <memory>

#include "cli/command.h"
#include "cli/merge_arguments.h"
#include "cli/render.h"
#include "mergepipe/base/text.h"
#include "mergepipe/run/recover.h"

namespace mergepipe {
namespace {

using Found = RecoverOutcome::Found;

std::string Lines(const std::vector<std::string>& lines, const char* label) {
  std::string text;
  for (const std::string& line : lines) text += fmt::format("{}{}\n", label, EscapeControl(line));
  return text;
}

// The first line, for what was done and for what would be.
std::string Headline(const std::string& catalog, const RecoverOutcome& outcome, bool done) {
  switch (outcome.found) {
    case Found::kWhole:
      if (!outcome.Changes()) return fmt::format("[OK] the catalog {} is whole\n", catalog);
      return fmt::format("{} the catalog {} is whole and {} from the run folders\n",
                         done ? "[OK]" : "[dry run]", catalog,
                         done ? "was completed" : "would be completed");
    case Found::kDamaged:
      return fmt::format("{} {} {}: {}\n", done ? "[OK] rebuilt" : "[dry run] would rebuild",
                         "the damaged catalog", catalog, EscapeControl(outcome.damage));
    case Found::kAbsent:
      return fmt::format("{} the catalog {} from the run folders\n",
                         done ? "[OK] made" : "[dry run] would make", catalog);
  }
  return {};
}

bool LosesModels(const RecoverOutcome& outcome) {
  return outcome.found == Found::kAbsent || outcome.lost_models > 0;
}

std::string RenderRecover(const std::string& catalog, const RecoverOutcome& outcome, bool done) {
  std::string text = Headline(catalog, outcome, done);
  if (outcome.found == Found::kDamaged) {
    text += fmt::format("kept: {} models, {} plans, {} runs, statistics of {} tensors\n",
                        outcome.models, outcome.plans, outcome.runs, outcome.statistics);
  }
  text += Lines(outcome.lost, "lost: ");
  text += Lines(outcome.added_runs, "from its folder: run ");
  text += Lines(outcome.added_plans, "from a run folder: plan ");
  text += Lines(outcome.left_out_runs, "left out: ");
  if (LosesModels(outcome)) text += "lost models come back with `mergepipe register`\n";
  if (!outcome.old_file.empty()) text += "the damaged file is kept as " + outcome.old_file + "\n";
  if (!done && outcome.Changes()) text += "nothing was changed: pass --yes to do it\n";
  return text;
}

struct RecoverCommand {
  RecoverOptions options;

  Status Run(CommandContext& context) const {
    MERGEPIPE_ASSIGN_OR_RETURN(const RecoverOutcome outcome,
                               RecoverCatalog(*context.files, options));
    Print(RenderRecover(options.catalog, outcome, options.apply));
    return {};
  }
};

}  // namespace

RunCommand AddRecover(CLI::App& app) {
  const auto command = std::make_shared<RecoverCommand>();
  AddCatalogOption(app, command->options.catalog);
  AddRunsOption(app, command->options.runs_directory);
  app.add_flag("--yes", command->options.apply, "do it; without this, only say what would be done");
  return [command](CommandContext& context) { return command->Run(context); };
}

}  // namespace mergepipe
