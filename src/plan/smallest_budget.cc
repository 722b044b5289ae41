#include "plan/passes.h"

namespace mergepipe {
namespace {

// The smallest whole number of MiB that covers the fixed reads, the probe that it allows, and
// `block` more bytes.
uint64_t SmallestMiB(const PlanInput& input, const Plan& plan, uint64_t block,
                     const std::vector<uint32_t>& probed) {
  const uint64_t always = plan.fingerprint_bytes + input.analysis_bytes + block;
  const uint64_t integers = IntegerBytes(plan);
  PlanInput at = input;
  for (uint64_t mib = std::max<uint64_t>(1, CeilDivide(always, kMiB));; ++mib) {
    at.options.budget_bytes = mib * kMiB;
    const uint64_t compared = integers <= mib * kMiB / kCompareShare ? integers : 0;
    uint64_t probe = 0;
    if (!probed.empty()) {
      const auto finest = FinestProbe(at, plan, probed);
      if (!finest) continue;
      probe = finest->bytes;
    }
    if (always + compared + probe <= mib * kMiB) return mib;
  }
}

}  // namespace

Error BudgetTooSmall(const PlanInput& input, const Plan& plan, const std::string& for_what,
                     uint64_t block, const std::vector<uint32_t>& probed) {
  const uint64_t fixed = FixedBytes(plan);
  const bool may_be_empty = fixed <= *input.options.budget_bytes;
  return Error(
      ErrorKind::kUsage, "--io-budget-mb",
      "a budget of " + FormatBytes(Bytes(*input.options.budget_bytes)) + " is too small to read " +
          for_what + " (" + FormatBytes(Bytes(fixed)) +
          " go to fingerprints, probes and integer tensors)",
      "give at least " + std::to_string(SmallestMiB(input, plan, block, probed)) + " MiB" +
          (may_be_empty ? ", or a smaller --block-size, or --allow-empty for a copy of the base"
                        : ""));
}

}  // namespace mergepipe
