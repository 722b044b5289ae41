#include <array>

#include "cli/command.h"

namespace mergepipe {

std::span<const CommandRow> CommandTable() {
  static constexpr std::array<CommandRow, 14> kCommands = {{
      {"merge", "merge experts into a base under a budget of expert reads (the default command)",
       true, AddMerge},
      {"analyze", "take statistics of the experts' deltas, for plans to choose by", true,
       AddAnalyze},
      {"plan",
       "show what a merge would read (may read samples of the experts for its scores); --sweep "
       "compares budgets",
       true, AddPlan},
      {"explain", "show what a run did, and why", false, AddExplain},
      {"verify", "re-hash an output against its manifest, its plan and the catalog", true,
       AddVerify},
      {"replay", "execute a stored plan again and compare every hash", true, AddReplay},
      {"materialize", "make the full checkpoint of a sparse output", true, AddMaterialize},
      {"diff", "distances between two checkpoints, or what differs between two runs or records",
       false, AddDiff},
      {"init-db", "make an empty catalog", false, AddInitDb},
      {"register", "put a model into the catalog", false, AddRegister},
      {"models", "list the models in the catalog", false, AddModels},
      {"recover",
       "rebuild a damaged or lost catalog from what can still be read and from the run folders, "
       "and "
       "clear away what killed merges left",
       false, AddRecover},
      {"doctor",
       "look at all that a merge depends on: program, ranks, machine, disks, models, catalog", true,
       AddDoctor},
      {"demo", "make a family of models to try things with", false, AddDemo},
  }};
  return kCommands;
}

}  // namespace mergepipe
