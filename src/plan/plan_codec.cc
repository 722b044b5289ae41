#include "mergepipe/plan/plan_codec.h"

#include <algorithm>

#include "mergepipe/plan/record_json.h"

namespace mergepipe {
namespace {

using record::Choice;
using record::Finite;
using record::Json;
using record::Require;
using record::Unsigned;

constexpr record::Kind kPlan = {"plan", "plan_hash", "plan_id"};
constexpr size_t kPlanIdLength = 16;
constexpr uint64_t kMaxReads = 16;

Json OptionsToJson(const PlanOptions& options) {
  const StrategyOptions& strategy = options.strategy;
  Json json = {
      {"strategy", strategy.name},
      {"density", strategy.density},
      {"weights", strategy.weights},
      {"lambda", strategy.lambda},
      {"seed", strategy.seed},
      {"normalize", strategy.normalize},
      {"trim_scope", strategy.trim_by_block ? "block" : "tensor"},
      {"scoring", options.scoring},
      {"top_p", options.top_p},
      {"budget_bytes", nullptr},
      {"block_size", options.block_size},
      {"out_dtype", options.out_dtype ? DTypeName(*options.out_dtype) : "same"},
      {"resident_bytes", options.resident_bytes},
      {"nonfinite", options.allow_nonfinite ? "allow" : "error"},
      {"missing", options.missing == MismatchPolicy::kBase ? "base" : "error"},
      {"extra", options.extra == MismatchPolicy::kDrop ? "drop" : "error"},
  };
  if (options.budget_bytes) json["budget_bytes"] = *options.budget_bytes;
  return json;
}

constexpr const char* kKinds[] = {"none", "exact", "probe"};  // StatisticsKind

Json SetsToJson(const std::vector<BlockSet>& sets) {
  Json json = Json::array();
  for (const BlockSet& blocks : sets) json.push_back(blocks.ToText());
  return json;
}

Json EnergyToJson(const std::vector<std::optional<DeltaEnergy>>& energies) {
  Json json = Json::array();
  for (const auto& energy : energies)
    json.push_back(energy ? Json::array({energy->total, energy->selected}) : Json());
  return json;
}

Json StatisticsToJson(const std::vector<PlannedStatistics>& statistics) {
  Json json = Json::array();
  for (const PlannedStatistics& known : statistics) {
    json.push_back(
        {{"kind", kKinds[static_cast<size_t>(known.kind)]}, {"hash", known.hash.ToHex()}});
  }
  return json;
}

Json TensorToJson(const PlannedTensor& tensor, uint64_t block_size) {
  Json sources = Json::array();
  for (const ExpertSource& source : tensor.sources) {
    sources.push_back(
        source.present ? Json{{"name", source.name}, {"dtype", DTypeName(source.dtype)}} : Json());
  }
  return {
      {"name", tensor.name},
      {"dtype", DTypeName(tensor.dtype)},
      {"out_dtype", DTypeName(tensor.out_dtype)},
      {"shape", tensor.shape},
      {"rule", record::ToJson(tensor.rule)},
      {"reason", tensor.reason},
      {"reads", tensor.reads},
      {"compare", tensor.compare},
      {"touched_blocks", tensor.Touched(block_size).Count()},
      {"selected", SetsToJson(tensor.selected)},
      {"equal", SetsToJson(tensor.equal)},
      {"energy", EnergyToJson(tensor.energy)},
      {"blocks_beyond_top_p", tensor.blocks_beyond_top_p},
      {"best_left_score_per_byte", tensor.best_left_score_per_byte},
      {"sources", std::move(sources)},
  };
}

Json PlanToJson(const Plan& plan) {
  Json tensors = Json::array();
  for (const PlannedTensor& tensor : plan.tensors)
    tensors.push_back(TensorToJson(tensor, plan.options.block_size));
  const double ratio = plan.objective_bound > 0 ? plan.objective / plan.objective_bound : 1.0;
  return {
      {"base", record::ToJson(plan.base)},
      {"experts", record::ToJson(plan.experts)},
      {"options", OptionsToJson(plan.options)},
      {"tensors", std::move(tensors)},
      {"dropped", record::ToJson(plan.dropped)},
      {"statistics", StatisticsToJson(plan.statistics)},
      {"probe_stride", plan.probe_stride},
      {"planned",
       {{"fingerprint_bytes", plan.fingerprint_bytes},
        {"probe_bytes", plan.probe_bytes},
        {"compare_bytes", plan.compare_bytes},
        {"merge_bytes", plan.merge_bytes},
        {"total_bytes", plan.PlannedBytes()}}},
      {"objective", plan.objective},
      {"objective_bound", plan.objective_bound},
      {"objective_ratio", ratio},
      {"cutoff_score_per_byte", plan.cutoff_score_per_byte},
      {"bound", record::ToJson(plan.bound)},
  };
}

PlanOptions ReadOptions(const Json& json) {
  PlanOptions options;
  options.strategy.name = json.at("strategy").get<std::string>();
  options.strategy.density = Finite(json.at("density"), "density");
  for (const Json& weight : record::Array(json.at("weights")))
    options.strategy.weights.push_back(Finite(weight, "weights"));
  options.strategy.lambda = Finite(json.at("lambda"), "lambda");
  options.strategy.seed = Unsigned(json.at("seed"), "seed");
  options.strategy.normalize = json.at("normalize").get<bool>();
  options.strategy.trim_by_block = Choice(json.at("trim_scope"), "block", "tensor");
  options.scoring = json.at("scoring").get<std::string>();
  options.top_p = Finite(json.at("top_p"), "top_p");
  Require(options.top_p > 0 && options.top_p <= 1, "top_p is not in (0, 1]");
  if (!json.at("budget_bytes").is_null())
    options.budget_bytes = Unsigned(json.at("budget_bytes"), "budget_bytes");
  options.block_size = Unsigned(json.at("block_size"), "block_size");
  Require(options.block_size > 0 && options.block_size <= kMaxBlockSize,
          "block_size is out of range");
  if (json.at("out_dtype") != "same") {
    options.out_dtype = record::Type(json.at("out_dtype"));
    Require(IsFloat(*options.out_dtype), "out_dtype is not a float type");
  }
  options.resident_bytes = Unsigned(json.at("resident_bytes"), "resident_bytes");
  options.allow_nonfinite = Choice(json.at("nonfinite"), "allow", "error");
  if (Choice(json.at("missing"), "base", "error")) options.missing = MismatchPolicy::kBase;
  if (Choice(json.at("extra"), "drop", "error")) options.extra = MismatchPolicy::kDrop;
  return options;
}

ExpertSource ReadSource(const Json& json) {
  if (json.is_null()) return {};
  return {true, json.at("name").get<std::string>(), record::Type(json.at("dtype"))};
}

std::vector<BlockSet> ReadSets(const Json& json, uint64_t blocks, size_t experts) {
  std::vector<BlockSet> sets;
  for (const Json& text : record::Array(json)) {
    auto set = BlockSet::FromText(text.get_ref<const std::string&>(), blocks);
    Require(set.has_value(), "a set of blocks is malformed");
    sets.push_back(std::move(*set));
  }
  Require(sets.size() == experts, "a tensor does not have one set of blocks an expert");
  return sets;
}

std::vector<std::optional<DeltaEnergy>> ReadEnergy(const Json& json, size_t experts) {
  std::vector<std::optional<DeltaEnergy>> energies;
  for (const Json& energy : record::Array(json)) {
    energies.emplace_back();
    if (energy.is_null()) continue;
    energies.back() = {Finite(energy.at(0), "energy"), Finite(energy.at(1), "energy")};
  }
  Require(energies.size() == experts, "energy does not have one entry an expert");
  return energies;
}

std::vector<PlannedStatistics> ReadStatistics(const Json& json, size_t experts) {
  std::vector<PlannedStatistics> statistics;
  for (const Json& known : record::Array(json)) {
    const auto kind = std::find(std::begin(kKinds), std::end(kKinds), known.at("kind"));
    Require(kind != std::end(kKinds), "there is no such kind of statistics");
    statistics.push_back(
        {static_cast<StatisticsKind>(kind - std::begin(kKinds)), record::Hash(known.at("hash"))});
  }
  Require(statistics.size() == experts, "statistics does not have one entry an expert");
  return statistics;
}

PlannedTensor ReadTensor(const Json& json, uint64_t block_size, size_t experts, uint64_t& pairs) {
  PlannedTensor tensor;
  tensor.name = json.at("name").get<std::string>();
  tensor.dtype = record::Type(json.at("dtype"));
  tensor.out_dtype = record::Type(json.at("out_dtype"));
  tensor.shape = record::Shape(json.at("shape"));
  tensor.rule = record::Rule(json.at("rule"));
  tensor.reason = json.at("reason").get<std::string>();
  const uint64_t reads = Unsigned(json.at("reads"), "reads");
  Require(reads >= 1 && reads <= kMaxReads, "reads is out of range");
  tensor.reads = static_cast<uint32_t>(reads);
  tensor.compare = json.at("compare").get<bool>();
  record::CountPairs(tensor.Blocks(block_size), experts, pairs);
  for (const Json& source : record::Array(json.at("sources")))
    tensor.sources.push_back(ReadSource(source));
  Require(tensor.sources.size() == experts, "sources does not have one entry an expert");
  tensor.selected = ReadSets(json.at("selected"), tensor.Blocks(block_size), experts);
  tensor.equal = ReadSets(json.at("equal"), tensor.Blocks(block_size), experts);
  tensor.energy = ReadEnergy(json.at("energy"), experts);
  tensor.blocks_beyond_top_p = Unsigned(json.at("blocks_beyond_top_p"), "blocks_beyond_top_p");
  tensor.best_left_score_per_byte =
      Finite(json.at("best_left_score_per_byte"), "best_left_score_per_byte");
  const bool merges = tensor.rule == TensorRule::kMerge;
  Require(!merges || IsFloat(tensor.dtype), "tensor '" + tensor.name + "' merges integers");
  Require(IsFloat(tensor.dtype) ? IsFloat(tensor.out_dtype) : tensor.out_dtype == tensor.dtype,
          "an out_dtype does not fit");
  for (const ExpertSource& source : tensor.sources) {
    Require(!source.present ||
                (IsFloat(tensor.dtype) ? IsFloat(source.dtype) : source.dtype == tensor.dtype),
            "the dtypes of tensor '" + tensor.name + "' do not fit");
  }
  for (size_t k = 0; k < experts; ++k) {
    const bool allowed = tensor.sources[k].present && tensor.rule == TensorRule::kMerge;
    Require(allowed || (tensor.selected[k].Empty() && tensor.equal[k].Empty()),
            "tensor '" + tensor.name + "' selects what is not there");
    Require(!tensor.selected[k].Intersects(tensor.equal[k]),
            "tensor '" + tensor.name + "' selects blocks that are equal to the base's");
  }
  return tensor;
}

Plan ReadPlan(const Json& json) {
  Plan plan;
  plan.options = ReadOptions(json.at("options"));
  plan.base = record::Model(json.at("base"));
  plan.experts = record::Models(json.at("experts"));
  Require(!plan.experts.empty(), "there are no experts");
  Require(plan.options.strategy.weights.size() == plan.experts.size(),
          "weights does not have one entry an expert");
  uint64_t pairs = 0;
  for (const Json& tensor : record::Array(json.at("tensors"))) {
    plan.tensors.push_back(ReadTensor(tensor, plan.options.block_size, plan.experts.size(), pairs));
  }
  plan.dropped = record::Dropped(json.at("dropped"), plan.experts.size());
  plan.statistics = ReadStatistics(json.at("statistics"), plan.experts.size());
  plan.probe_stride = Unsigned(json.at("probe_stride"), "probe_stride");
  const bool probed =
      std::any_of(plan.statistics.begin(), plan.statistics.end(),
                  [](const auto& known) { return known.kind == StatisticsKind::kProbe; });
  Require(probed == (plan.probe_stride > 0), "probe_stride does not fit the statistics");
  const Json& planned = json.at("planned");
  plan.probe_bytes = Unsigned(planned.at("probe_bytes"), "probe_bytes");
  plan.fingerprint_bytes = Unsigned(planned.at("fingerprint_bytes"), "fingerprint_bytes");
  plan.compare_bytes = Unsigned(planned.at("compare_bytes"), "compare_bytes");
  plan.merge_bytes = Unsigned(planned.at("merge_bytes"), "merge_bytes");
  uint64_t merge_bytes = 0;  // at most 2^61, by the limits of pairs, block size and reads
  for (const PlannedTensor& tensor : plan.tensors)
    merge_bytes += tensor.SelectedBytes(plan.options.block_size) * tensor.reads;
  Require(merge_bytes == plan.merge_bytes, "merge_bytes is not what the selection reads");
  const Bytes total = Bytes(plan.fingerprint_bytes) + Bytes(plan.probe_bytes) +
                      Bytes(plan.compare_bytes) + Bytes(merge_bytes);
  Require(total < Bytes::Unlimited() &&
              total <= Bytes(plan.options.budget_bytes.value_or(total.count())),
          "the planned bytes are over the budget");
  plan.objective = Finite(json.at("objective"), "objective");
  plan.objective_bound = Finite(json.at("objective_bound"), "objective_bound");
  plan.cutoff_score_per_byte = Finite(json.at("cutoff_score_per_byte"), "cutoff_score_per_byte");
  plan.bound = record::Bound(json.at("bound"));
  return plan;
}

}  // namespace

std::string PlanIdOf(const std::string& plan_hash) { return plan_hash.substr(0, kPlanIdLength); }

std::string PlanHash(const Plan& plan) { return record::HashOf(kPlan, PlanToJson(plan)); }

std::string SerializePlan(const Plan& plan) { return record::ToText(kPlan, PlanToJson(plan)); }

Result<Plan> ParsePlan(const std::string& text, const std::string& subject) {
  Plan plan;
  MERGEPIPE_RETURN_IF_ERROR(
      record::ReadRecord(kPlan, text, subject, [&](const Json& json) { plan = ReadPlan(json); }));
  return plan;
}

}  // namespace mergepipe
