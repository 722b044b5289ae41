#include "mergepipe/run/analyze.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/merge_arguments.h"
#include "cli/progress.h"
#include "cli/render.h"
#include "cli/start_line.h"
#include "cli/stop_signal.h"

namespace mergepipe {
namespace {

PlanningIo SumOf(const AnalyzeOutcome& outcome) {
  PlanningIo sum;
  for (const PlanningIo& rank : outcome.read) {
    sum.expert_bytes += rank.expert_bytes;
    sum.base_bytes += rank.base_bytes;
  }
  return sum;
}

std::string Render(const AnalyzeOutcome& outcome) {
  const PlanningIo read = SumOf(outcome);
  std::string experts;
  std::string known;
  for (const AnalyzedExpert& expert : outcome.experts) {
    experts += fmt::format("{}'{}'", experts.empty() ? "" : ", ", expert.id);
    if (!expert.read) known += fmt::format("{}'{}'", known.empty() ? "" : ", ", expert.id);
  }
  std::string text = fmt::format(
      "[OK] analyzed base={} experts=[{}] | {} blocks | read {} of experts, {} of the base | "
      "{:.1f}s\n",
      outcome.base, experts, outcome.blocks, FormatBytes(Bytes(read.expert_bytes)),
      FormatBytes(Bytes(read.base_bytes)), outcome.seconds);
  if (!known.empty()) text += "     known already: " + known + "\n";
  return text;
}

std::string RenderJson(const AnalyzeOutcome& outcome, const AnalyzeOptions& options) {
  const PlanningIo read = SumOf(outcome);
  nlohmann::json experts = nlohmann::json::array();
  for (const AnalyzedExpert& expert : outcome.experts)
    experts.push_back({{"id", expert.id}, {"analyzed", expert.read}});
  nlohmann::json by_rank = nlohmann::json::array();
  for (const PlanningIo& rank : outcome.read) {
    by_rank.push_back(
        {{"expert_bytes_read", rank.expert_bytes}, {"base_bytes_read", rank.base_bytes}});
  }
  const nlohmann::json json = {
      {"base", outcome.base},
      {"experts", std::move(experts)},
      {"block_size", options.block_size},
      {"blocks", outcome.blocks},
      {"expert_bytes_read", read.expert_bytes},
      {"base_bytes_read", read.base_bytes},
      {"by_rank", std::move(by_rank)},
      {"seconds", outcome.seconds},
  };
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

struct AnalyzeCommand {
  AnalyzeOptions options;
  LimitArguments limits;
  std::string nonfinite = "error";
  bool json = false;

  Status Run(CommandContext& context) const {
    ProblemList problems;
    CheckBlockSize(options.block_size, problems);
    MERGEPIPE_RETURN_IF_ERROR(problems.ToStatus(ErrorKind::kUsage));
    AnalyzeOptions analyze = options;
    analyze.allow_nonfinite = nonfinite == "allow";
    analyze.limits = limits.ToLimits();
    ProgressPrinter progress(ParseProgressStyle(limits.progress), "analyzing");
    analyze.limits.progress = &progress;
    StopOnSignals();
    MERGEPIPE_RETURN_IF_ERROR(AnnounceStart(*context.communicator, analyze.limits.threads));
    MERGEPIPE_ASSIGN_OR_RETURN(const AnalyzeOutcome outcome,
                               RunAnalyze(*context.files, *context.communicator, analyze));
    if (context.communicator->is_root())
      Print(json ? RenderJson(outcome, analyze) : Render(outcome));
    return {};
  }
};

}  // namespace

RunCommand AddAnalyze(CLI::App& app) {
  const auto command = std::make_shared<AnalyzeCommand>();
  AnalyzeOptions& options = command->options;
  AddCatalogOption(app, options.inputs.catalog);
  app.add_option("--base", options.inputs.base, "base model: a registered id, or a path")
      ->required();
  app.add_option("--experts", options.inputs.experts, "expert models: registered ids, or paths")
      ->required();
  app.add_option("--block-size", options.block_size, "elements of a block")
      ->capture_default_str()
      ->check(WholeNumber());
  app.add_flag("--force", options.force, "read again what the catalog knows already");
  app.add_option("--nonfinite", command->nonfinite, "what to do about NaN and infinity")
      ->capture_default_str()
      ->check(CLI::IsMember({"error", "allow"}));
  app.add_flag("--json", command->json, "print the result as JSON");
  command->limits.Add(app);
  return [command](CommandContext& context) { return command->Run(context); };
}

}  // namespace mergepipe
