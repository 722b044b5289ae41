#include "exec/nonfinite_check.h"

#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

std::string Describe(const NonFiniteCount& count) {
  return std::to_string(count.nan) + " NaN and " + std::to_string(count.inf) + " infinite values";
}

}  // namespace

void CheckFinite(const Slice& slice, const TensorPart& part, const PartReport& report,
                 ProblemList& problems) {
  if (slice.allow_nonfinite) return;
  bool in_input = false;
  for (size_t input = 0; input < report.inputs.size(); ++input) {
    if (!report.inputs[input].any()) continue;
    in_input = true;
    const std::string model = input == 0 ? "base" : "expert " + Quote(slice.expert_ids[input - 1]);
    problems.Add(model + ": tensor " + Quote(part.name), "has " + Describe(report.inputs[input]),
                 "repair the checkpoint, or pass --nonfinite allow");
  }
  if (in_input || !report.made.any()) return;
  problems.Add("output: tensor " + Quote(part.name),
               "would have " + Describe(report.made) + " where the base is finite (dtype " +
                   std::string(DTypeName(part.out_dtype)) + ")",
               "choose a wider --out-dtype or smaller weights, or pass --nonfinite allow");
}

}  // namespace mergepipe
