#include "exec/nonfinite_check.h"

#include "exec/known_hashes.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

std::string Describe(const NonFiniteCount& count) {
  return std::to_string(count.nan) + " NaN and " + std::to_string(count.inf) + " infinite values";
}

}  // namespace

bool ListNonFinite(const std::string& tensor, const std::vector<NonFiniteCount>& inputs,
                   const std::vector<std::string>& expert_ids, ProblemList& problems) {
  bool any = false;
  for (size_t input = 0; input < inputs.size(); ++input) {
    if (!inputs[input].any()) continue;
    any = true;
    const std::string model = input == 0 ? "base" : "expert " + Quote(expert_ids[input - 1]);
    problems.Add(model + ": tensor " + Quote(tensor), "has " + Describe(inputs[input]),
                 "repair the checkpoint, or pass --nonfinite allow");
  }
  return any;
}

void CheckFinite(const Slice& slice, const TensorPart& part, const PartReport& report,
                 ProblemList& problems) {
  if (slice.allow_nonfinite) return;
  const bool in_input = ListNonFinite(part.name, report.inputs, slice.expert_ids, problems);
  if (in_input || !report.made.any()) return;
  problems.Add("output: tensor " + Quote(part.name),
               "would have " + Describe(report.made) + " where the base is finite (dtype " +
                   std::string(DTypeName(part.out_dtype)) + ")",
               "choose a wider --out-dtype or smaller weights, or pass --nonfinite allow");
}

Status CheckReport(const Slice& slice, const TensorPart& part, const PartReport& report,
                   ProblemList& nonfinite) {
  MERGEPIPE_RETURN_IF_ERROR(CheckKnownHashes(slice, part, report));
  CheckFinite(slice, part, report, nonfinite);
  return {};
}

}  // namespace mergepipe
