#include <cstdint>
#include <cstdlib>

#include "format/model_config.h"
#include "mergepipe/format/output_layout.h"

// Any config.json parses or is refused; an edited one still parses to the same, and a second edit
// changes nothing.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using mergepipe::DType;
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const auto config = mergepipe::ParseModelConfig(json, "f");
  const auto edited = mergepipe::EditConfig(json, DType::kBF16, "f");
  if (config && !edited) std::abort();
  if (!edited) return 0;
  const auto again = mergepipe::ParseModelConfig(*edited, "f");
  if (config && (!again || *again != *config)) std::abort();
  const auto twice = mergepipe::EditConfig(*edited, DType::kBF16, "f");
  if (!twice || *twice != *edited) std::abort();
  return 0;
}
