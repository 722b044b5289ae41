#include <fmt/format.h>

#include <algorithm>
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
    experts += fmt::format("{}'{}'", experts.empty() ? "" : ", ", EscapeControl(expert.id));
  }
  return fmt::format(
      "[OK] merged base={} experts=[{}] -> {} | run={} | plan={:.2f}s exec={:.1f}s\n",
      EscapeControl(outcome.manifest.base.id), experts, EscapeControl(target),
      outcome.run_directory, outcome.plan_seconds, outcome.exec_seconds);
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
  text += RenderTimes(outcome);
  if (manifest.output == OutputForm::kSparse) {
    text +=
        fmt::format("     sparse: `mergepipe materialize {} --out DIR` makes the full checkpoint\n",
                    EscapeControl(options.target.directory));
  }
  return text;
}

namespace {

// Several ranks are told apart; of many, the extremes.
constexpr size_t kMostRanksListed = 8;

double Share(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

std::string RateText(uint64_t bytes, double seconds) {
  if (!(seconds > 0)) return "-";
  return FormatBytes(Bytes(static_cast<uint64_t>(static_cast<double>(bytes) / seconds))) + "/s";
}

uint64_t ReadBytes(const SliceReport& rank) {
  return rank.expert_bytes_read + rank.compare_bytes_read + rank.base_bytes_read;
}

std::string RankTimes(const SliceReport& rank) {
  return fmt::format(
      "     rank {:<4} {}: {:.1f} s: read {} at {}, computed {:.1f} s, wrote {} at {}, synced "
      "{:.1f} "
      "s, peak {}\n",
      rank.rank, rank.host, rank.merge_seconds + rank.sync_seconds,
      FormatBytes(Bytes(ReadBytes(rank))), RateText(ReadBytes(rank), rank.read_seconds),
      rank.compute_seconds, FormatBytes(Bytes(rank.output_bytes_written)),
      RateText(rank.output_bytes_written, rank.write_seconds), rank.sync_seconds,
      FormatBytes(Bytes(rank.peak_memory_bytes)));
}

std::string DiskText(const DiskTraits& disk) {
  return disk.filesystem + (disk.direct ? " (direct transfers)" : " (buffered transfers)");
}

// The ranks to list, in rank order.
std::vector<const SliceReport*> Listed(const std::vector<SliceReport>& ranks) {
  std::vector<const SliceReport*> listed;
  for (const SliceReport& rank : ranks) listed.push_back(&rank);
  if (ranks.size() <= kMostRanksListed) return listed;
  const auto [fastest, slowest] =
      std::ranges::minmax_element(ranks, {}, &SliceReport::merge_seconds);
  const auto largest = std::ranges::max_element(ranks, {}, &SliceReport::peak_memory_bytes);
  listed = {&*fastest, &*slowest, &*largest};
  std::ranges::sort(listed, {}, &SliceReport::rank);
  listed.erase(std::unique(listed.begin(), listed.end()), listed.end());
  return listed;
}

}  // namespace

std::string RenderTimes(const MergeOutcome& outcome) {
  uint64_t moved = 0;
  uint64_t peak = 0;
  double longest = 0;
  double busy = 0;
  double merging = 0;
  for (const SliceReport& rank : outcome.ranks) {
    moved += ReadBytes(rank) + rank.output_bytes_written;
    peak = std::max(peak, rank.peak_memory_bytes);
    longest = std::max(longest, rank.merge_seconds + rank.sync_seconds);
    busy += rank.transfer_seconds + rank.sync_seconds;
    merging += rank.merge_seconds + rank.sync_seconds;
  }
  std::string text = fmt::format(
      "     moved {} in {:.1f} s: {}, {:.0f} % of the {} that were measured while bytes moved | "
      "peak "
      "memory {} a rank\n",
      FormatBytes(Bytes(moved)), longest, RateText(moved, longest), Share(busy, merging),
      RateText(moved, busy / static_cast<double>(std::max<size_t>(1, outcome.ranks.size()))),
      FormatBytes(Bytes(peak)));
  text += fmt::format("     inputs on {}, output on {}\n", DiskText(outcome.input_disk),
                      DiskText(outcome.output_disk));
  if (outcome.gathered_by_root) {
    std::string why;
    for (const std::string& host : outcome.blind_hosts) why += (why.empty() ? "" : ", ") + host;
    text += "     rank 0 wrote for all" +
            (why.empty() ? "" : ": the output's directory is not seen on " + why) + "\n";
  }
  for (const SliceReport* rank : Listed(outcome.ranks)) text += RankTimes(*rank);
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
