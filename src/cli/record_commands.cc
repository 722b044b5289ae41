#include <fmt/format.h>
#include "cli/command.h"
#include "cli/merge_arguments.h"
#include "cli/render.h"
#include "mergepipe/base/text.h"
#include "mergepipe/run/audit.h"

namespace mergepipe {
namespace {

constexpr size_t kDiffRows = 20;

struct VerifyCommand {
  AuditOptions audit;
  bool full = false;
  LimitArguments limits;

  Status Run(CommandContext& context) const {
    Communicator& communicator = *context.communicator;
    MERGEPIPE_ASSIGN_OR_RETURN(const VerifyOutcome outcome,
                               VerifyOutput(*context.files, communicator, audit.places,
                                            audit.directory, limits.Threads()));
    if (communicator.is_root()) Print(RenderVerify(audit.directory, outcome));
    if (!full) return {};
    AuditOptions options = audit;
    options.limits = limits.ToLimits();
    MERGEPIPE_ASSIGN_OR_RETURN(const AuditOutcome audited,
                               AuditOutput(*context.files, communicator, options));
    if (communicator.is_root()) Print(RenderAudit(audited));
    return {};
  }
};

struct ExplainCommand {
  std::string run;
  std::string tensor;
  bool json = false;
  RecordPlaces places;

  Status Run(CommandContext& context) const {
    MERGEPIPE_ASSIGN_OR_RETURN(const StoredRun stored, LoadRun(*context.files, places, run));
    if (!tensor.empty()) {
      MERGEPIPE_ASSIGN_OR_RETURN(const std::string text, RenderTensor(stored, tensor));
      Print(text);
    } else {
      Print(json ? RenderRunJson(stored) : RenderRun(stored));
    }
    return {};
  }
};

struct DiffCommand {
  std::string a;
  std::string b;
  bool json = false;
  bool all = false;
  RecordPlaces places;
  LimitArguments limits;

  Status Run(CommandContext& context) const {
    FileSystem& files = *context.files;
    MERGEPIPE_ASSIGN_OR_RETURN(const std::string path_a, CheckpointPath(files, places.catalog, a));
    MERGEPIPE_ASSIGN_OR_RETURN(const std::string path_b, CheckpointPath(files, places.catalog, b));
    const bool a_is_model = IsCheckpoint(files, path_a);
    const bool b_is_model = IsCheckpoint(files, path_b);
    if (a_is_model && b_is_model) return DiffModels(files, path_a, path_b);
    if (a_is_model || b_is_model) {
      return Fail(ErrorKind::kUsage, a_is_model ? b : a,
                  "is not a checkpoint, and " + (a_is_model ? a : b) + " is one",
                  "give two checkpoints, two runs, or two records (`mergepipe materialize` makes a "
                  "checkpoint of a sparse output)");
    }
    if (json) return Fail(ErrorKind::kUsage, "--json", "is for two checkpoints", "leave it out");
    MERGEPIPE_ASSIGN_OR_RETURN(const auto lines, DiffRecords(files, places, a, b));
    if (lines.empty()) Print("equal\n");
    for (const std::string& line : lines) Print(EscapeControl(line) + "\n");
    return {};
  }

  Status DiffModels(FileSystem& files, const std::string& path_a, const std::string& path_b) const {
    MERGEPIPE_ASSIGN_OR_RETURN(const CheckpointDistance distance,
                               DiffCheckpoints(files, path_a, path_b, limits.Threads()));
    Print(json ? RenderDiffJson(distance)
               : RenderDiff(distance, all ? distance.tensors.size() : kDiffRows));
    return {};
  }
};

}  // namespace

RunCommand AddVerify(CLI::App& app) {
  const auto command = std::make_shared<VerifyCommand>();
  AuditOptions& audit = command->audit;
  app.add_option("dir", audit.directory, "output directory of a merge")->required();
  CLI::Option* const full = app.add_flag(
      "--full", command->full,
      "also hash what was read of the inputs again, and make a sample of the output again");
  app.add_option("--sample", audit.sample, "blocks of the output to make again")
      ->capture_default_str()
      ->check(WholeNumber())
      ->needs(full);
  app.add_option("--seed", audit.seed, "of the choice of blocks [a random one]")
      ->check(WholeNumber())
      ->needs(full);
  app.add_option("--base", audit.inputs.base, "where the base is now, if not as it was registered")
      ->needs(full);
  app.add_option("--experts", audit.inputs.experts, "where the experts are now, in the run's order")
      ->needs(full);
  AddCatalogOption(app, audit.places.catalog);
  AddRunsOption(app, audit.places.runs_directory);
  command->limits.Add(app);
  return [command](CommandContext& context) { return command->Run(context); };
}

RunCommand AddExplain(CLI::App& app) {
  const auto command = std::make_shared<ExplainCommand>();
  app.add_option("run", command->run, "run id, run folder, or the output of a run")->required();
  app.add_option("--tensor", command->tensor, "what became of one tensor, and why");
  app.add_flag("--json", command->json, "print plan and manifest as JSON")->excludes("--tensor");
  AddCatalogOption(app, command->places.catalog);
  AddRunsOption(app, command->places.runs_directory);
  return [command](CommandContext& context) { return command->Run(context); };
}

RunCommand AddDiff(CLI::App& app) {
  const auto command = std::make_shared<DiffCommand>();
  app.add_option("a", command->a, "checkpoint, run, plan.json or manifest.json")->required();
  app.add_option("b", command->b, "the same kind of thing")->required();
  app.add_flag("--json", command->json, "checkpoints: print all tensors as JSON");
  app.add_flag("--all", command->all,
               "checkpoints: print all tensors that differ, not the farthest only");
  AddCatalogOption(app, command->places.catalog);
  AddRunsOption(app, command->places.runs_directory);
  command->limits.Add(app);
  return [command](CommandContext& context) { return command->Run(context); };
}

}  // namespace mergepipe
