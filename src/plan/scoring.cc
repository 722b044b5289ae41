#include <array>
#include <cmath>
#include <string>

#include "mergepipe/base/nearest_name.h"
#include "plan/passes.h"

namespace mergepipe {
namespace {

// The top 53 bits of a hash as a number in [0, 1): exact in double.
double UnitInterval(uint64_t hash) { return std::ldexp(static_cast<double>(hash >> 11), -53); }

Status ScoreUniform(const PlanInput& /*input*/, const Plan& plan, PairTable& pairs) {
  for (uint32_t t = 0; t < plan.tensors.size(); ++t) {
    const Hash128 name_hash = HashText(plan.tensors[t].name);
    for (uint64_t i = pairs.TensorBegin(t); i < pairs.TensorEnd(t); ++i) {
      if (pairs.scores[i] == PairTable::kNotACandidate) continue;
      const uint64_t within = i - pairs.TensorBegin(t);
      const std::array<uint64_t, 4> key = {name_hash.high, name_hash.low, within / pairs.experts(),
                                           within % pairs.experts()};
      pairs.scores[i] = UnitInterval(HashBytes(std::as_bytes(std::span(key))).low);
    }
  }
  return {};
}

constexpr std::array<ScoringRow, 1> kScorings = {{{"uniform", ScoreUniform}}};

}  // namespace

Result<ScoringPass> FindScoring(std::string_view name) {
  for (const ScoringRow& row : kScorings) {
    if (row.name == name) return row.run;
  }
  std::string known;
  for (const ScoringRow& row : kScorings)
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  return Fail(ErrorKind::kUsage, "--scoring", "there is no scoring '" + std::string(name) + "'",
              "use one of: " + known);
}

}  // namespace mergepipe
