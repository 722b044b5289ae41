#include <fmt/format.h>

#include <algorithm>

#include "cli/plan_summary.h"
#include "cli/render.h"
#include "mergepipe/base/nearest_name.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

constexpr size_t kMaxRanges = 8;

std::string Blocks(uint64_t count) {
  return fmt::format("{} {}", count, count == 1 ? "block" : "blocks");
}

bool HasCandidates(const PlannedTensor& tensor) { return tensor.rule == TensorRule::kMerge; }

// What keeps blocks of this tensor from being read.
std::string LimitsText(const Plan& plan, const PlannedTensor& tensor) {
  if (tensor.blocks_beyond_top_p == 0) return "over the budget";
  return plan.options.budget_bytes ? "beyond --top-p or over the budget" : "beyond --top-p";
}

std::string CountsText(const Plan& plan, const PlannedTensor& tensor, size_t k) {
  const uint64_t blocks = tensor.Blocks(plan.options.block_size);
  const uint64_t read = tensor.selected[k].Count();
  const uint64_t equal = tensor.equal[k].Count();
  const std::string which = read > 0 ? fmt::format(" ({})", RangesText(tensor.selected[k])) : "";
  return fmt::format("{}: {} read{}, {} {}, {} as the base", Blocks(blocks), read, which,
                     blocks - read - equal, LimitsText(plan, tensor), equal);
}

std::string EnergyOfTensorText(const Plan& plan, const PlannedTensor& tensor, size_t k) {
  const StatisticsKind kind = plan.statistics[k].kind;
  if (kind == StatisticsKind::kNone || !tensor.energy[k]) return "; its energy is unknown";
  const DeltaEnergy& energy = *tensor.energy[k];
  const bool probed = kind == StatisticsKind::kProbe;
  if (!(energy.total > 0)) return probed ? "; no energy in its samples" : "";
  return fmt::format("; {:.1f} % of its energy in this tensor{}",
                     Percent(energy.selected, energy.total),
                     probed ? " (estimated from samples)" : "");
}

std::string ComparedText(const PlannedTensor& tensor, const ManifestTensor& made, size_t k) {
  if (!tensor.compare) return "not read";
  const bool differs = std::any_of(
      made.sources.begin(), made.sources.end(),
      [=](const ManifestSource& source) { return source.expert == k && source.differs; });
  return differs ? "compared: differs from the base" : "compared: as the base";
}

std::string ExpertText(const StoredRun& run, size_t t, size_t k) {
  const PlannedTensor& tensor = run.plan.tensors[t];
  if (!tensor.sources[k].present) return "does not have it";
  if (!HasCandidates(tensor)) return ComparedText(tensor, run.manifest.tensors[t], k);
  return CountsText(run.plan, tensor, k) + EnergyOfTensorText(run.plan, tensor, k);
}

// Whether some expert has a block that was not read and is not known to be the base's.
bool SomethingIsLeft(const Plan& plan, const PlannedTensor& tensor) {
  const uint64_t blocks = tensor.Blocks(plan.options.block_size);
  for (size_t k = 0; k < tensor.sources.size(); ++k) {
    if (tensor.sources[k].present && tensor.selected[k].Count() + tensor.equal[k].Count() < blocks)
      return true;
  }
  return false;
}

std::string LeftForBudgetText(const Plan& plan, const PlannedTensor& tensor) {
  if (plan.merge_bytes == 0) return "  the budget reads no block of any tensor (--allow-empty)\n";
  if (tensor.best_left_score_per_byte > 0) {
    return fmt::format(
        "  over the budget: the best block left here has a score of {:.4g} a byte, the best one "
        "left anywhere {:.4g}\n",
        tensor.best_left_score_per_byte, plan.cutoff_score_per_byte);
  }
  return tensor.blocks_beyond_top_p == 0 ? "  over the budget: what is left here has a score of 0\n"
                                         : "";
}

// Why blocks were left unread.
std::string WhyText(const Plan& plan, const PlannedTensor& tensor) {
  if (!HasCandidates(tensor) || tensor.elements() == 0) return "";
  const bool touched = !tensor.Touched(plan.options.block_size).Empty();
  if (!SomethingIsLeft(plan, tensor)) {
    return touched ? "" : "  nothing is touched: every expert is known to be as the base here\n";
  }
  std::string text = touched ? "" : "  nothing is touched:\n";
  if (tensor.blocks_beyond_top_p > 0) {
    text += fmt::format("  beyond --top-p {}: {} with something to read\n", plan.options.top_p,
                        Blocks(tensor.blocks_beyond_top_p));
  }
  return text + LeftForBudgetText(plan, tensor);
}

}  // namespace

std::string RangesText(const BlockSet& blocks) {
  std::string text;
  size_t ranges = 0;
  blocks.ForEachRun([&](BlockIndex begin, BlockIndex end) {
    if (++ranges > kMaxRanges) return;
    if (!text.empty()) text += ",";
    text += std::to_string(begin.value);
    if (end.value - begin.value > 1) text += "-" + std::to_string(end.value - 1);
  });
  return ranges > kMaxRanges ? text + ",..." : text;
}

Result<std::string> RenderTensor(const StoredRun& run, const std::string& tensor) {
  const auto& tensors = run.manifest.tensors;
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const ManifestTensor& t) { return t.name == tensor; });
  if (found == tensors.end()) {
    std::vector<std::string> names;
    for (const ManifestTensor& candidate : tensors) names.push_back(candidate.name);
    const auto nearest = NearestName(tensor, names);
    return Fail(
        ErrorKind::kUsage, "--tensor", "the run has no tensor " + Quote(tensor),
        nearest ? "did you mean " + Quote(*nearest) + "?" : "see the names in manifest.json");
  }
  std::string text = fmt::format(
      "{} {} {}{}\n  {}; {} of {} touched; hash {}\n", EscapeControl(found->name),
      DTypeName(found->dtype), FormatShape(found->shape),
      found->file.empty() ? ", not in the sparse output" : " in " + EscapeControl(found->file),
      EscapeControl(found->reason), found->touched_blocks, Blocks(found->blocks),
      found->hash.ToHex());
  const auto t = static_cast<size_t>(found - tensors.begin());
  for (size_t k = 0; k < run.plan.experts.size(); ++k)
    text +=
        fmt::format("  {:<32} {}\n", EscapeControl(run.plan.experts[k].id), ExpertText(run, t, k));
  return text + WhyText(run.plan, run.plan.tensors[t]);
}

}  // namespace mergepipe
