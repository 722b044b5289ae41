#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/render.h"
#include "mergepipe/base/nearest_name.h"
#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"

namespace mergepipe {
namespace {

// "self_attn.q_proj.weight" for "model.layers.3.self_attn.q_proj.weight": tensors of one kind,
// whatever the layer.
std::string KindOf(const std::string& name) {
  const size_t layers = name.find("layers.");
  const size_t dot = layers == std::string::npos ? std::string::npos : name.find('.', layers + 7);
  return dot == std::string::npos ? name : name.substr(dot + 1);
}

struct KindRow {
  uint64_t tensors = 0;
  uint64_t blocks = 0;
  uint64_t touched = 0;
};

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
      "selection: scoring {}, top-p {}, budget {}, block size {}\n",
      strategy.name, strategy.density, strategy.lambda,
      strategy.normalize ? "normalized" : "not normalized",
      strategy.trim_by_block ? "block" : "tensor", strategy.seed, options.scoring, options.top_p,
      options.budget_bytes ? FormatBytes(Bytes(*options.budget_bytes)) : std::string("none"),
      options.block_size);
}

std::string KindsText(const Manifest& manifest) {
  std::map<std::string, KindRow> kinds;
  for (const ManifestTensor& tensor : manifest.tensors) {
    KindRow& row = kinds[KindOf(tensor.name)];
    ++row.tensors;
    row.blocks += tensor.blocks;
    row.touched += tensor.touched_blocks;
  }
  std::string text =
      fmt::format("{:<44} {:>8} {:>10} {:>10}\n", "kind of tensor", "tensors", "blocks", "touched");
  for (const auto& [kind, row] : kinds) {
    text += fmt::format("{:<44} {:>8} {:>10} {:>10}\n", EscapeControl(kind), row.tensors,
                        row.blocks, row.touched);
  }
  return text;
}

std::string RulesText(const Manifest& manifest) {
  std::map<std::string, uint64_t> reasons;
  for (const ManifestTensor& tensor : manifest.tensors) ++reasons[tensor.reason];
  for (const DroppedTensor& tensor : manifest.dropped)
    ++reasons["expert's tensor left out: " + tensor.reason];
  std::string text = "what became of the tensors:\n";
  for (const auto& [reason, count] : reasons) text += fmt::format("  {:>8}  {}\n", count, reason);
  return text;
}

}  // namespace

std::string RenderRun(const StoredRun& run) {
  const Manifest& manifest = run.manifest;
  std::string text = fmt::format("run {} | plan {} | output model '{}'\n", manifest.run_id,
                                 manifest.plan_hash.substr(0, 16), manifest.model_id);
  text += fmt::format("base    {} (fingerprint {})\n", manifest.base.id,
                      manifest.base.fingerprint.ToHex());
  for (size_t k = 0; k < manifest.experts.size(); ++k) {
    text +=
        fmt::format("expert  {} (fingerprint {}), weight {}\n", manifest.experts[k].id,
                    manifest.experts[k].fingerprint.ToHex(), run.plan.options.strategy.weights[k]);
  }
  text += OptionsText(run.plan.options);
  const IoCounts& io = manifest.io;
  text += fmt::format(
      "expert bytes: planned {}, read {} merging and {} probing | base {} | written {}, of it "
      "unchanged {}\n",
      manifest.planned_expert_bytes, io.expert_bytes_read, io.probe_bytes_read, io.base_bytes_read,
      io.output_bytes_written, io.copied_bytes);
  text += RulesText(manifest);
  text += NonFiniteText(manifest);
  return text + KindsText(manifest);
}

std::string RenderRunJson(const StoredRun& run) {
  const nlohmann::json json = {{"plan", nlohmann::json::parse(run.plan_text)},
                               {"manifest", nlohmann::json::parse(run.manifest_text)}};
  return json.dump(1) + "\n";
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
  std::string text = fmt::format("{} {} {} in {}\n  {}; {} of {} blocks touched; hash {}\n",
                                 EscapeControl(found->name), DTypeName(found->dtype),
                                 FormatShape(found->shape), found->file, found->reason,
                                 found->touched_blocks, found->blocks, found->hash.ToHex());
  for (const ManifestSource& source : found->sources) {
    text += fmt::format("  {:<32} blocks {}{}\n", run.manifest.experts[source.expert].id,
                        source.blocks.Empty() ? "none" : source.blocks.ToText(),
                        source.differs ? " (differs from the base)" : "");
  }
  return text;
}

std::string RenderVerify(const std::string& directory, const VerifyOutcome& outcome) {
  std::string text = fmt::format("[OK] verified {} | run={} | {} tensors, {} files, {}\n",
                                 directory, outcome.run_id, outcome.tensors, outcome.files,
                                 FormatBytes(Bytes(outcome.bytes)));
  for (const std::string& note : outcome.notes) text += "note: " + EscapeControl(note) + "\n";
  return text;
}

}  // namespace mergepipe
