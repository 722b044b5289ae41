#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/render.h"
#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"

namespace mergepipe {
namespace {

struct BlockCounts {
  uint64_t touched = 0;
  uint64_t all = 0;
};

BlockCounts MergedBlocks(const Manifest& manifest) {
  BlockCounts counts;
  for (const ManifestTensor& tensor : manifest.tensors) {
    if (tensor.rule != TensorRule::kMerge) continue;
    counts.touched += tensor.touched_blocks;
    counts.all += tensor.blocks;
  }
  return counts;
}

nlohmann::json ToJson(const std::optional<ErrorBound>& bound) {
  if (!bound) return nullptr;
  return {{"unread", bound->unread}, {"rounding", bound->rounding}, {"total", bound->total}};
}

nlohmann::json ToJson(const std::optional<uint64_t>& number) {
  return number ? nlohmann::json(*number) : nlohmann::json(nullptr);
}

}  // namespace

void Print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

std::string OkLine(const std::string& target, const MergeOutcome& outcome) {
  std::string experts;
  for (const PlannedModel& expert : outcome.manifest.experts) {
    experts += fmt::format("{}'{}'", experts.empty() ? "" : ", ", expert.id);
  }
  return fmt::format(
      "[OK] merged base={} experts=[{}] -> {} | run={} | plan={:.2f}s exec={:.1f}s\n",
      outcome.manifest.base.id, experts, EscapeControl(target), outcome.run_directory,
      outcome.plan_seconds, outcome.exec_seconds);
}

std::string RenderMerge(const MergeOptions& options, const MergeOutcome& outcome) {
  const Manifest& manifest = outcome.manifest;
  const uint64_t read = manifest.io.probe_bytes_read + manifest.io.expert_bytes_read;
  const auto [touched, blocks] = MergedBlocks(manifest);
  std::string text = OkLine(options.target.directory, outcome);
  text += fmt::format("     expert bytes read {} (budget {}), base {}, written {} in {} files\n",
                      FormatBytes(Bytes(read)), BudgetText(manifest.budget_bytes),
                      FormatBytes(Bytes(manifest.io.base_bytes_read)),
                      FormatBytes(Bytes(manifest.io.output_bytes_written)), manifest.files.size());
  if (manifest.bound) text += "     " + BoundText(manifest.bound);
  text += fmt::format("     {} tensors, {} of {} blocks merged | plan {} | ranks {}\n",
                      manifest.tensors.size(), touched, blocks, outcome.plan_id,
                      manifest.by_rank.size());
  if (manifest.output == OutputForm::kSparse) {
    text +=
        fmt::format("     sparse: `mergepipe materialize {} --out DIR` makes the full checkpoint\n",
                    EscapeControl(options.target.directory));
  }
  return text;
}

std::string RenderMergeJson(const std::string& directory, const MergeOutcome& outcome) {
  const Manifest& manifest = outcome.manifest;
  const auto [touched, blocks] = MergedBlocks(manifest);
  nlohmann::json experts = nlohmann::json::array();
  for (const PlannedModel& expert : manifest.experts) experts.push_back(expert.id);
  const nlohmann::json json = {
      {"out", directory},
      {"output", manifest.output == OutputForm::kSparse ? "sparse" : "full"},
      {"model_id", manifest.model_id},
      {"run_id", outcome.run_id},
      {"run", outcome.run_directory},
      {"plan_id", outcome.plan_id},
      {"plan_hash", manifest.plan_hash},
      {"base", manifest.base.id},
      {"experts", std::move(experts)},
      {"seconds", {{"plan", outcome.plan_seconds}, {"exec", outcome.exec_seconds}}},
      {"budget_bytes", ToJson(manifest.budget_bytes)},
      {"planned_expert_bytes", manifest.planned_expert_bytes},
      {"expert_bytes_read", manifest.io.expert_bytes_read},
      {"probe_bytes_read", manifest.io.probe_bytes_read},
      {"base_bytes_read", manifest.io.base_bytes_read},
      {"output_bytes_written", manifest.io.output_bytes_written},
      {"blocks_touched", touched},
      {"blocks", blocks},
      {"bound", ToJson(manifest.bound)},
      {"warnings", outcome.warnings},
  };
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string DescribeRank(const RankIo& rank) {
  return fmt::format(
      "rank {} on {}: expert bytes {} merged, {} probed and compared, base {}, written {}",
      rank.rank, rank.host, FormatBytes(Bytes(rank.io.expert_bytes_read)),
      FormatBytes(Bytes(rank.io.probe_bytes_read)), FormatBytes(Bytes(rank.io.base_bytes_read)),
      FormatBytes(Bytes(rank.io.output_bytes_written)));
}

}  // namespace mergepipe
