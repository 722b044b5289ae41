#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/render.h"
#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"

namespace mergepipe {
namespace {

std::string BudgetText(const std::optional<uint64_t>& budget) {
  return budget ? FormatBytes(Bytes(*budget)) : std::string("none");
}

uint64_t CandidateBytes(const Plan& plan) {
  uint64_t bytes = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    for (const ExpertSource& source : tensor.sources) {
      if (source.present) bytes += tensor.elements() * DTypeSize(source.dtype);
    }
  }
  return bytes;
}

double Percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

uint64_t SelectedBytesOf(const Plan& plan, size_t expert) {
  uint64_t bytes = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    bytes += tensor.ElementsOf(tensor.selected[expert], plan.options.block_size) *
             DTypeSize(tensor.sources[expert].dtype) * tensor.reads;
  }
  return bytes;
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
  uint64_t touched = 0;
  uint64_t blocks = 0;
  for (const ManifestTensor& tensor : manifest.tensors) {
    if (tensor.rule != TensorRule::kMerge) continue;
    touched += tensor.touched_blocks;
    blocks += tensor.blocks;
  }
  std::string text = OkLine(options.target.directory, outcome);
  text += fmt::format("     expert bytes read {} (budget {}), base {}, written {} in {} files\n",
                      FormatBytes(Bytes(read)), BudgetText(manifest.budget_bytes),
                      FormatBytes(Bytes(manifest.io.base_bytes_read)),
                      FormatBytes(Bytes(manifest.io.output_bytes_written)), manifest.files.size());
  text += fmt::format("     {} tensors, {} of {} blocks merged | plan {} | ranks {}\n",
                      manifest.tensors.size(), touched, blocks, outcome.plan_id,
                      manifest.by_rank.size());
  return text;
}

std::string RenderMergeJson(const MergeOptions& options, const MergeOutcome& outcome) {
  const Manifest& manifest = outcome.manifest;
  nlohmann::json experts = nlohmann::json::array();
  for (const PlannedModel& expert : manifest.experts) experts.push_back(expert.id);
  const nlohmann::json json = {
      {"out", options.target.directory},
      {"model_id", manifest.model_id},
      {"run_id", outcome.run_id},
      {"run", outcome.run_directory},
      {"plan_id", outcome.plan_id},
      {"plan_hash", manifest.plan_hash},
      {"base", manifest.base.id},
      {"experts", std::move(experts)},
      {"seconds", {{"plan", outcome.plan_seconds}, {"exec", outcome.exec_seconds}}},
      {"expert_bytes_read", manifest.io.expert_bytes_read},
      {"probe_bytes_read", manifest.io.probe_bytes_read},
      {"warnings", outcome.warnings},
  };
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string DescribeRank(const RankIo& rank) {
  return fmt::format(
      "rank {} on {}: expert bytes {} to merge and {} to compare, base {}, written {}", rank.rank,
      rank.host, FormatBytes(Bytes(rank.io.expert_bytes_read)),
      FormatBytes(Bytes(rank.io.probe_bytes_read)), FormatBytes(Bytes(rank.io.base_bytes_read)),
      FormatBytes(Bytes(rank.io.output_bytes_written)));
}

std::string RenderPlan(const PlannedMerge& planned) {
  const Plan& plan = planned.plan;
  const uint64_t all = CandidateBytes(plan);
  std::string text =
      fmt::format("plan {} | {} {} | scoring {}\n", planned.plan_hash.substr(0, 16),
                  plan.options.strategy.name, plan.options.strategy.density, plan.options.scoring);
  text += fmt::format("expert bytes to read: {} of {} ({:.1f} %), budget {}\n",
                      FormatBytes(Bytes(plan.PlannedBytes())), FormatBytes(Bytes(all)),
                      Percent(plan.PlannedBytes(), all), BudgetText(plan.options.budget_bytes));
  text += fmt::format("  fingerprints {}, integer tensors compared {}, merging {}\n",
                      FormatBytes(Bytes(plan.fingerprint_bytes)),
                      FormatBytes(Bytes(plan.compare_bytes)), FormatBytes(Bytes(plan.merge_bytes)));
  text += fmt::format("blocks touched: {} of {} ({:.1f} %, --top-p {})\n", plan.TouchedBlocks(),
                      plan.MergeBlocks(), Percent(plan.TouchedBlocks(), plan.MergeBlocks()),
                      plan.options.top_p);
  for (size_t k = 0; k < plan.experts.size(); ++k) {
    text += fmt::format("  {:<32} {:>12}\n", plan.experts[k].id,
                        FormatBytes(Bytes(SelectedBytesOf(plan, k))));
  }
  if (plan.objective_bound > 0) {
    text += fmt::format("score taken: {:.6g} of at most {:.6g} ({:.2f} %)\n", plan.objective,
                        plan.objective_bound, 100 * plan.objective / plan.objective_bound);
  }
  uint64_t read_again = 0;
  for (const PlannedTensor& tensor : plan.tensors) read_again += tensor.reads > 1 ? 1 : 0;
  if (read_again > 0) {
    text += fmt::format(
        "{} tensors do not fit --resident-mb and are read several times; the budget counts each\n",
        read_again);
  }
  return text;
}

}  // namespace mergepipe
