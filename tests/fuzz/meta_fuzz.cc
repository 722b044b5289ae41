#include <cstdint>
#include <cstdlib>

#include "json_mutation.h"
#include "mergepipe/manifest/record_diff.h"
#include "mergepipe/manifest/run_folder.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  return mergepipe::fuzz::MutateJson(data, size, max_size, seed);
}

// Any meta.json parses or is refused; what parses is the same after it was written and read again.
// Any record is equal to itself, and can be compared with another.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto meta = mergepipe::ParseMeta(text, "f")) {
    const auto again = mergepipe::ParseMeta(mergepipe::SerializeMeta(*meta), "f");
    if (!again || again->run_id != meta->run_id || again->output_path != meta->output_path ||
        again->finished_at != meta->finished_at || again->exit_status != meta->exit_status) {
      std::abort();
    }
  }
  static const std::string kOther = R"({"a": [1, {"name": "x"}, {"name": "y"}], "b": {"c": null}})";
  const auto same = mergepipe::CompareRecords(text, "f", text, "f");
  const auto differ = mergepipe::CompareRecords(text, "f", kOther, "o");
  if (same.has_value() != differ.has_value() || (same && !same->empty())) std::abort();
  return 0;
}
