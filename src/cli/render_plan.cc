#include <fmt/format.h>

#include "cli/plan_summary.h"
#include "cli/render.h"
#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"

namespace mergepipe {
namespace {

const char* KindName(StatisticsKind kind) {
  switch (kind) {
    case StatisticsKind::kNone: return "none";
    case StatisticsKind::kExact: return "exact";
    case StatisticsKind::kProbe: return "probed";
  }
  return "none";
}

// "(16 KiB of every block)", "(16 KiB of one block in 3)".
std::string ProbeText(uint64_t stride) {
  const std::string where = stride > 1 ? fmt::format("one block in {}", stride) : "every block";
  return fmt::format(" ({} KiB of {})", kProbeBytes / 1024, where);
}

// "statistics: exact for a, b; probed for c (16 KiB of every block)".
std::string StatisticsText(const Plan& plan) {
  std::string text = "statistics:";
  const char* separator = " ";
  for (const StatisticsKind kind :
       {StatisticsKind::kExact, StatisticsKind::kProbe, StatisticsKind::kNone}) {
    std::vector<std::string> ids;
    for (size_t k = 0; k < plan.experts.size(); ++k) {
      if (plan.statistics[k].kind == kind) ids.push_back(EscapeControl(plan.experts[k].id));
    }
    if (ids.empty()) continue;
    text += fmt::format("{}{} for {}", separator, KindName(kind), JoinNames(ids));
    if (kind == StatisticsKind::kProbe) text += ProbeText(plan.probe_stride);
    separator = "; ";
  }
  return text + "\n";
}

std::string ExpertBytesText(const Plan& plan) {
  const uint64_t all = plan.CandidateBytes();
  return fmt::format("expert bytes planned: {} of {} ({:.1f} %), budget {}\n",
                     FormatBytes(Bytes(plan.PlannedBytes())), FormatBytes(Bytes(all)),
                     Percent(plan.PlannedBytes(), all), BudgetText(plan.options.budget_bytes)) +
         fmt::format("  fingerprints {}, probes {}, integer tensors compared {}, merging {}\n",
                     FormatBytes(Bytes(plan.fingerprint_bytes)),
                     FormatBytes(Bytes(plan.probe_bytes)), FormatBytes(Bytes(plan.compare_bytes)),
                     FormatBytes(Bytes(plan.merge_bytes)));
}

std::string EnergyText(const Plan& plan) {
  SummaryRow sum;
  for (const SummaryRow& row : SummarizeExperts(plan)) sum.Add(row);
  if (!sum.energy_known) return "";
  const bool estimated = plan.probe_stride > 0 && sum.energy.total > 0;
  return fmt::format("energy of the deltas covered: {}{}\n", sum.EnergyText(),
                     estimated ? " (estimated from samples)" : "");
}

struct WeightBytes {
  uint64_t base = 0;
  uint64_t output = 0;
};

// What a merge reads of the base, and writes. Of a tensor that does not stay in memory touched
// blocks are read in every round of observation too.
WeightBytes BaseAndOutput(const Plan& plan, OutputForm form) {
  const uint64_t block_size = plan.options.block_size;
  WeightBytes bytes;
  for (const PlannedTensor& tensor : plan.tensors) {
    const bool merged = tensor.rule == TensorRule::kMerge;
    const uint64_t touched = merged ? tensor.ElementsOf(tensor.Touched(block_size), block_size) : 0;
    const uint64_t elements = form == OutputForm::kSparse ? touched : tensor.elements();
    const uint64_t made_of = tensor.compare ? tensor.elements() : elements;
    bytes.base += (made_of + touched * (tensor.reads - 1)) * DTypeSize(tensor.dtype);
    bytes.output += elements * DTypeSize(tensor.out_dtype);
  }
  return bytes;
}

std::string TimeText(const Plan& plan, OutputForm form, double bandwidth) {
  const auto [base, output] = BaseAndOutput(plan, form);
  const uint64_t bytes = plan.PlannedBytes() + base + output;
  return fmt::format("time at {:.0f} MiB/s: {:.1f} s for {} of experts, {} of base, {} of output\n",
                     bandwidth, static_cast<double>(bytes) / static_cast<double>(kMiB) / bandwidth,
                     FormatBytes(Bytes(plan.PlannedBytes())), FormatBytes(Bytes(base)),
                     FormatBytes(Bytes(output)));
}

// What the planning itself has read: the merge finds it in the catalog.
std::string ReadForPlanText(const PlannedMerge& planned) {
  PlanningIo sum;
  for (const PlanningIo& rank : planned.read) {
    sum.expert_bytes += rank.expert_bytes;
    sum.base_bytes += rank.base_bytes;
  }
  if (sum.expert_bytes + sum.base_bytes == 0) return "";
  return fmt::format("read for this plan: {} of experts, {} of base (kept in the catalog)\n",
                     FormatBytes(Bytes(sum.expert_bytes)), FormatBytes(Bytes(sum.base_bytes)));
}

std::string ReadAgainText(const Plan& plan) {
  uint64_t tensors = 0;
  for (const PlannedTensor& tensor : plan.tensors) tensors += tensor.reads > 1 ? 1 : 0;
  if (tensors == 0) return "";
  return fmt::format("{} fit --resident-mb and {} read several times; the budget counts each\n",
                     tensors == 1 ? "1 tensor does not" : fmt::format("{} tensors do not", tensors),
                     tensors == 1 ? "is" : "are");
}

}  // namespace

std::string BudgetText(const std::optional<uint64_t>& budget) {
  return budget ? FormatBytes(Bytes(*budget)) : std::string("none");
}

std::string BoundText(const std::optional<ErrorBound>& bound) {
  if (!bound) return "distance to the full-read merge: no bound is known\n";
  return fmt::format(
      "distance to the full-read merge: at most {:.6g} in L2 ({:.6g} unread, {:.6g} rounding)\n",
      bound->total, bound->unread, bound->rounding);
}

std::string PlanHead(const Plan& plan) {
  std::string text = StatisticsText(plan) + ExpertBytesText(plan);
  text += fmt::format("blocks touched: {} of {} ({:.1f} %, --top-p {})\n", plan.TouchedBlocks(),
                      plan.MergeBlocks(), Percent(plan.TouchedBlocks(), plan.MergeBlocks()),
                      plan.options.top_p);
  text += EnergyText(plan);
  if (plan.objective_bound > 0) {
    text += fmt::format(
        "selection: {:.2f} % of the best possible score ({:.6g} of at most {:.6g})\n",
        Percent(plan.objective, plan.objective_bound), plan.objective, plan.objective_bound);
  }
  return text + BoundText(plan.bound);
}

std::string RenderPlan(const PlannedMerge& planned, OutputForm form, double bandwidth) {
  const Plan& plan = planned.plan;
  return fmt::format("plan {} | {} {} | scoring {}\n", planned.plan_hash.substr(0, 16),
                     plan.options.strategy.name, plan.options.strategy.density,
                     plan.options.scoring) +
         PlanHead(plan) + TimeText(plan, form, bandwidth) + ReadForPlanText(planned) +
         ReadAgainText(plan) + SummaryTables(plan, "to read");
}

}  // namespace mergepipe
