#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>

#include "cli/command.h"
#include "cli/merge_arguments.h"
#include "cli/render.h"
#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"
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
      if (!outcome.ChangesCatalog()) return fmt::format("[OK] the catalog {} is whole\n", catalog);
      return fmt::format("{} the catalog {} is whole and {} from the run folders\n",
                         done ? "[OK]" : "[dry run]", catalog,
                         done ? "was completed" : "would be completed");
    case Found::kDamaged:
      return fmt::format("{} {} {}: {}\n", done ? "[OK] rebuilt" : "[dry run] would rebuild",
                         "the damaged catalog", catalog, EscapeControl(outcome.damage));
    case Found::kAbsent:
      return fmt::format("{} the catalog {} from the run folders\n",
                         done ? "[OK] made" : "[dry run] would make", catalog);
    case Found::kNothing:
      return fmt::format("[OK] there is no catalog {}, and no run to make one of\n", catalog);
  }
  return {};
}

bool LosesModels(const RecoverOutcome& outcome) {
  return outcome.found == Found::kAbsent || outcome.lost_models > 0;
}

std::string Age(uint64_t seconds) {
  constexpr uint64_t kMinute = 60;
  constexpr uint64_t kHour = 60 * kMinute;
  constexpr uint64_t kDay = 24 * kHour;
  if (seconds < 2 * kMinute) return fmt::format("{} s", seconds);
  if (seconds < 2 * kHour) return fmt::format("{} min", seconds / kMinute);
  if (seconds < 2 * kDay) return fmt::format("{} h", seconds / kHour);
  return fmt::format("{} days", seconds / kDay);
}

// What it is, and what the same merge would do with it.
std::string WhatItIs(const Leftover& leftover) {
  const std::string target = EscapeControl(leftover.target);
  switch (leftover.kind) {
    case Leftover::Kind::kStaging:
      return "unfinished output " + target + "; the same merge " +
             (leftover.has_journal ? "goes on from it" : "starts again");
    case Leftover::Kind::kJournal:
      return "journal of the unfinished output " + target + ", from which the same merge goes on";
    case Leftover::Kind::kReplaced:
      return "earlier output " + target + ", left while it was being replaced; the next merge to " +
             "it does what this does";
    case Leftover::Kind::kLock: return "lock of " + target + " that nobody holds";
    case Leftover::Kind::kRunFolder: return "run without a manifest; the same merge makes another";
  }
  return {};
}

std::string WhatIsDone(const Leftover& leftover, bool done) {
  if (leftover.failure) return "could not be settled";
  if (!leftover.kept.empty()) return "left alone: " + EscapeControl(leftover.kept);
  const bool put_back = leftover.kind == Leftover::Kind::kReplaced && !leftover.target_exists;
  if (put_back) return done ? "has its name back" : "gets its name back";
  return done ? "removed" : "to be removed";
}

std::string RenderLeftover(const Leftover& leftover, bool done) {
  return fmt::format("left behind: {} ({}; {}, last written {} ago): {}\n",
                     EscapeControl(leftover.path), WhatItIs(leftover),
                     FormatBytes(Bytes(leftover.bytes)), Age(leftover.age_seconds),
                     WhatIsDone(leftover, done));
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
  for (const Leftover& leftover : outcome.leftovers) text += RenderLeftover(leftover, done);
  return text;
}

// The question goes where the answer comes from.
bool Confirmed() {
  if (::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0) return false;
  Print("do it? [y/N] ");
  std::fflush(stdout);
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

Status FailuresOf(const RecoverOutcome& outcome) {
  ProblemList problems;
  for (const Leftover& leftover : outcome.leftovers) {
    if (leftover.failure) problems.Add(*leftover.failure);
  }
  return problems.ToStatus(ErrorKind::kIo);
}

struct RecoverCommand {
  RecoverOptions options;

  Status Run(CommandContext& context) const {
    if (options.apply) return Do(context);
    MERGEPIPE_ASSIGN_OR_RETURN(const RecoverOutcome outcome,
                               RecoverCatalog(*context.files, options));
    Print(RenderRecover(options.catalog, outcome, false));
    if (!outcome.Changes()) return {};
    if (Confirmed()) return Do(context);
    Print("nothing was changed: pass --yes to do it\n");
    return {};
  }

  Status Do(CommandContext& context) const {
    RecoverOptions really = options;
    really.apply = true;
    MERGEPIPE_ASSIGN_OR_RETURN(const RecoverOutcome outcome,
                               RecoverCatalog(*context.files, really));
    Print(RenderRecover(options.catalog, outcome, true));
    return FailuresOf(outcome);
  }
};

}  // namespace

RunCommand AddRecover(CLI::App& app) {
  const auto command = std::make_shared<RecoverCommand>();
  RecoverOptions& options = command->options;
  app.add_option("directories", options.directories,
                 "further directories to look into for what killed merges left");
  app.add_option("--out", options.outputs, "a further output to look beside; need not exist")
      ->allow_extra_args(false);
  AddCatalogOption(app, options.catalog);
  AddRunsOption(app, options.runs_directory);
  app.add_flag("--yes", options.apply,
               "do it; without this, ask on a terminal, elsewhere only say what would be done");
  app.footer("Exits with 0 also if there is something to do and nothing was done.");
  return [command](CommandContext& context) { return command->Run(context); };
}

}  // namespace mergepipe
