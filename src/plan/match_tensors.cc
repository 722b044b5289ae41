#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "mergepipe/base/text.h"
#include "plan/passes.h"

namespace mergepipe {
namespace {

constexpr std::string_view kHeadName = "lm_head.weight";
constexpr std::string_view kEmbeddingNames[] = {"embed_tokens.weight", "wte.weight",
                                                "word_embeddings.weight"};
using TensorsByName = std::unordered_map<std::string_view, const TensorInfo*>;

TensorsByName IndexByName(const ModelLayout& layout) {
  TensorsByName by_name;
  for (const TensorInfo& tensor : layout.tensors) by_name.emplace(tensor.name, &tensor);
  return by_name;
}

bool IsHead(std::string_view name) { return name.ends_with(kHeadName); }

// The input embedding that a tied head stands for: the only tensor with a known embedding name.
const TensorInfo* FindEmbedding(const ModelLayout& layout) {
  const TensorInfo* found = nullptr;
  for (const TensorInfo& tensor : layout.tensors) {
    const bool matches =
        std::any_of(std::begin(kEmbeddingNames), std::end(kEmbeddingNames),
                    [&](std::string_view name) { return tensor.name.ends_with(name); });
    if (!matches) continue;
    if (found != nullptr) return nullptr;
    found = &tensor;
  }
  return found;
}

// The tensor of `expert` that corresponds to the base's `tensor`, or null.
const TensorInfo* FindSource(const TensorInfo& tensor, const ModelRecord& expert,
                             const TensorsByName& by_name) {
  if (const auto it = by_name.find(tensor.name); it != by_name.end()) return it->second;
  if (IsHead(tensor.name) && expert.layout.config.tie_word_embeddings)
    return FindEmbedding(expert.layout);
  return nullptr;
}

std::string Subject(const ModelRecord& expert, std::string_view tensor) {
  return "expert " + Quote(expert.id) + ": tensor " + Quote(tensor);
}

// Whether the expert's tensor can be merged into the base's; if not, says why.
bool Fits(const TensorInfo& base, const TensorInfo& source, const ModelRecord& expert,
          ProblemList& problems) {
  if (source.shape != base.shape) {
    problems.Add(
        Subject(expert, base.name),
        "has shape " + FormatShape(source.shape) + ", the base has " + FormatShape(base.shape),
        "merge only fine-tuned versions of this base");
    return false;
  }
  const bool same_kind = IsFloat(base.dtype) ? IsFloat(source.dtype) : source.dtype == base.dtype;
  if (!same_kind) {
    problems.Add(Subject(expert, base.name),
                 "has dtype " + std::string(DTypeName(source.dtype)) + ", the base has " +
                     std::string(DTypeName(base.dtype)),
                 "merge only fine-tuned versions of this base");
  }
  return same_kind;
}

ExpertSource MatchOne(const PlanInput& input, const TensorInfo& tensor, size_t k,
                      const TensorsByName& by_name, ProblemList& problems) {
  const ModelRecord& expert = *input.experts[k];
  const TensorInfo* source = FindSource(tensor, expert, by_name);
  if (source == nullptr) {
    if (input.options.missing == MismatchPolicy::kError) {
      problems.Add(Subject(expert, tensor.name), "is missing",
                   "pass --missing base to keep the base's version of it");
    }
    return {};
  }
  if (!Fits(tensor, *source, expert, problems)) return {};
  return {true, source->name, source->dtype};
}

void SetRule(PlannedTensor& tensor) {
  const bool any = std::any_of(tensor.sources.begin(), tensor.sources.end(),
                               [](const ExpertSource& source) { return source.present; });
  if (!IsFloat(tensor.dtype)) {
    tensor.rule = TensorRule::kBase;
    tensor.reason = "integer tensor: taken from the base";
  } else if (!any) {
    tensor.rule = TensorRule::kBase;
    tensor.reason = "no expert has it: taken from the base";
  } else {
    tensor.rule = TensorRule::kMerge;
    tensor.reason = "merged";
  }
}

PlannedTensor MatchTensor(const PlanInput& input, const TensorInfo& tensor,
                          const std::vector<TensorsByName>& experts, ProblemList& problems) {
  PlannedTensor planned;
  planned.name = tensor.name;
  planned.dtype = tensor.dtype;
  planned.out_dtype =
      IsFloat(tensor.dtype) ? input.options.out_dtype.value_or(tensor.dtype) : tensor.dtype;
  planned.shape = tensor.shape;
  for (size_t k = 0; k < experts.size(); ++k) {
    planned.sources.push_back(MatchOne(input, tensor, k, experts[k], problems));
  }
  SetRule(planned);
  const uint64_t blocks = planned.Blocks(input.options.block_size);
  planned.selected.assign(experts.size(), BlockSet(blocks));
  planned.equal.assign(experts.size(), BlockSet(blocks));
  planned.energy.resize(experts.size());
  return planned;
}

// Expert tensors that no output tensor takes.
void MatchExtras(const PlanInput& input, const TensorsByName& base, size_t k, Plan& plan,
                 ProblemList& problems) {
  const ModelRecord& expert = *input.experts[k];
  for (const TensorInfo& tensor : expert.layout.tensors) {
    if (base.contains(tensor.name)) continue;
    if (IsHead(tensor.name) && expert.layout.config.tie_word_embeddings &&
        FindEmbedding(expert.layout) != nullptr) {
      plan.dropped.push_back({static_cast<uint32_t>(k), tensor.name,
                              "tied head: its config says that the embedding is used instead"});
    } else if (input.options.extra == MismatchPolicy::kDrop) {
      plan.dropped.push_back(
          {static_cast<uint32_t>(k), tensor.name, "not in the base: dropped (--extra drop)"});
    } else {
      problems.Add(Subject(expert, tensor.name), "is not in the base",
                   "pass --extra drop to leave it out");
    }
  }
}

}  // namespace

Status MatchTensors(const PlanInput& input, Plan& plan) {
  plan.base = {input.base->id, input.base->fingerprint};
  std::vector<TensorsByName> experts;
  for (const ModelRecord* expert : input.experts) {
    plan.experts.push_back({expert->id, expert->fingerprint});
    plan.statistics.emplace_back();
    experts.push_back(IndexByName(expert->layout));
  }
  ProblemList problems;
  for (const TensorInfo& tensor : input.base->layout.tensors) {
    plan.tensors.push_back(MatchTensor(input, tensor, experts, problems));
  }
  const TensorsByName base = IndexByName(input.base->layout);
  for (size_t k = 0; k < input.experts.size(); ++k) MatchExtras(input, base, k, plan, problems);
  return problems.ToStatus(ErrorKind::kBadInput);
}

uint64_t IntegerBytes(const Plan& plan) {
  uint64_t bytes = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (!IsFloat(tensor.dtype)) bytes += tensor.ExpertBytes();
  }
  return bytes;
}

Status ReserveFixedReads(const PlanInput& input, Plan& plan) {
  for (const ModelRecord* expert : input.experts)
    plan.fingerprint_bytes += FingerprintBytes(expert->layout);

  const uint64_t integer_bytes = IntegerBytes(plan);
  if (input.options.budget_bytes && integer_bytes > *input.options.budget_bytes / kCompareShare) {
    for (PlannedTensor& tensor : plan.tensors) {
      if (!IsFloat(tensor.dtype)) tensor.reason += " (not compared: over 1 % of the budget)";
    }
    return {};
  }
  plan.compare_bytes = integer_bytes;
  for (PlannedTensor& tensor : plan.tensors) tensor.compare = !IsFloat(tensor.dtype);
  return {};
}

}  // namespace mergepipe
