#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "cli/plan_summary.h"
#include "cli/render.h"
#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"

namespace mergepipe {
namespace {

std::string NonFiniteText(const Manifest& manifest) {
  uint64_t nan = 0;
  uint64_t inf = 0;
  const auto add = [&](const NonFiniteCount& count) {
    nan += count.nan;
    inf += count.inf;
  };
  for (const ManifestTensor& tensor : manifest.tensors) {
    add(tensor.base_nonfinite);
    add(tensor.made_nonfinite);
    for (const ManifestSource& source : tensor.sources) add(source.nonfinite);
  }
  return nan + inf == 0 ? ""
                        : fmt::format("non-finite values met: {} NaN, {} infinite\n", nan, inf);
}

std::string OptionsText(const PlanOptions& options) {
  const StrategyOptions& strategy = options.strategy;
  return fmt::format(
      "strategy {}: density {}, lambda {}, {}, trim scope {}, seed {}\n"
      "scoring {}, block size {} elements\n",
      EscapeControl(strategy.name), strategy.density, strategy.lambda,
      strategy.normalize ? "normalized" : "not normalized",
      strategy.trim_by_block ? "block" : "tensor", strategy.seed, EscapeControl(options.scoring),
      options.block_size);
}

std::string RulesText(const Manifest& manifest) {
  std::map<std::string, uint64_t> reasons;
  for (const ManifestTensor& tensor : manifest.tensors) ++reasons[tensor.reason];
  for (const DroppedTensor& tensor : manifest.dropped)
    ++reasons["expert's tensor left out: " + tensor.reason];
  std::string text = "what became of the tensors:\n";
  for (const auto& [reason, count] : reasons) {
    text += fmt::format("  {:>8}  {}\n", count, EscapeControl(reason));
  }
  return text;
}

// What was read and written in fact; planned reads may have been done by a command before.
std::string IoText(const Manifest& manifest) {
  const IoCounts& io = manifest.io;
  const uint64_t read = io.expert_bytes_read + io.probe_bytes_read;
  const uint64_t planned = manifest.planned_expert_bytes;
  const std::string earlier = read < planned ? fmt::format("; {} were read by an earlier command",
                                                           FormatBytes(Bytes(planned - read)))
                                             : "";
  return fmt::format("expert bytes read: {} (budget {}): {} merged, {} probed and compared{}\n",
                     FormatBytes(Bytes(read)), BudgetText(manifest.budget_bytes),
                     FormatBytes(Bytes(io.expert_bytes_read)),
                     FormatBytes(Bytes(io.probe_bytes_read)), earlier) +
         fmt::format("base read {} | output: {}, written {}, of it unchanged {}\n",
                     FormatBytes(Bytes(io.base_bytes_read)),
                     manifest.output == OutputForm::kSparse ? "sparse" : "full",
                     FormatBytes(Bytes(io.output_bytes_written)),
                     FormatBytes(Bytes(io.copied_bytes)));
}

}  // namespace

std::string RenderRun(const StoredRun& run) {
  const Manifest& manifest = run.manifest;
  std::string text =
      fmt::format("run {} | plan {} | output model {}\n", EscapeControl(manifest.run_id),
                  manifest.plan_hash.substr(0, 16), Quote(manifest.model_id));
  text += fmt::format("base    {} (fingerprint {})\n", EscapeControl(manifest.base.id),
                      manifest.base.fingerprint.ToHex());
  for (size_t k = 0; k < manifest.experts.size(); ++k) {
    text += fmt::format(
        "expert  {} (fingerprint {}), weight {}\n", EscapeControl(manifest.experts[k].id),
        manifest.experts[k].fingerprint.ToHex(), run.plan.options.strategy.weights[k]);
  }
  text += OptionsText(run.plan.options);
  text += PlanHead(run.plan) + IoText(manifest) + RulesText(manifest) + NonFiniteText(manifest);
  return text + SummaryTables(run.plan, "read");
}

std::string RenderRunJson(const StoredRun& run) {
  const nlohmann::json json = {{"plan", nlohmann::json::parse(run.plan_text)},
                               {"manifest", nlohmann::json::parse(run.manifest_text)},
                               {"summary", SummaryToJson(run.plan)}};
  return json.dump(1) + "\n";
}

std::string RenderVerify(const std::string& directory, const VerifyOutcome& outcome) {
  std::string text = fmt::format("[OK] verified {} | run={} | {} tensors, {} files, {}\n",
                                 EscapeControl(directory), EscapeControl(outcome.run_id),
                                 outcome.tensors, outcome.files, FormatBytes(Bytes(outcome.bytes)));
  for (const std::string& note : outcome.notes) text += "note: " + EscapeControl(note) + "\n";
  return text;
}

std::string RenderAudit(const AuditOutcome& outcome) {
  std::string text =
      fmt::format("[OK] the inputs are what was read: {} of {} tensors of base and experts\n",
                  FormatBytes(Bytes(outcome.input_bytes)), outcome.input_tensors);
  if (outcome.sampled_blocks == 0) return text;
  return text + fmt::format("[OK] made again: {} blocks of {} tensors, all equal (--seed {})\n",
                            outcome.sampled_blocks, outcome.sampled_tensors, outcome.seed);
}

}  // namespace mergepipe
