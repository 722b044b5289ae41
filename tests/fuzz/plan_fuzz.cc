#include <cstdint>
#include <cstdlib>

#include "json_mutation.h"
#include "mergepipe/plan/plan_codec.h"
#include "mergepipe/plan/record_json.h"

namespace {

constexpr mergepipe::record::Kind kPlan = {"plan", "plan_hash", "plan_id"};

void Check(const std::string& text) {
  const auto plan = mergepipe::ParsePlan(text, "f");
  if (!plan) return;
  const std::string written = mergepipe::SerializePlan(*plan);
  const auto again = mergepipe::ParsePlan(written, "f");
  if (!again || *again != *plan || mergepipe::SerializePlan(*again) != written) std::abort();
  if (plan->PlannedBytes() > plan->options.budget_bytes.value_or(UINT64_MAX)) std::abort();
  if (plan->TouchedBlocks() > plan->MergeBlocks()) std::abort();
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  return mergepipe::fuzz::MutateJson(data, size, max_size, seed);
}

// Any plan parses or is refused; what parses is the same after it was written and read again. A
// changed one is refused for its hash, so it is looked at with the right hash too.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  Check(text);
  auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) Check(mergepipe::record::ToText(kPlan, std::move(json)));
  return 0;
}
