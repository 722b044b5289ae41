#include <cstdint>
#include <cstdlib>

#include "mergepipe/format/safetensors.h"

// Any header parses or is refused; what parses is the same after it was written and read again.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using mergepipe::ParseSafetensorsHeader;
  if (size < 2) return 0;
  const uint64_t data_bytes = data[0] + 256u * data[1];  // the first two bytes: length of the data
  const std::string_view json(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto header = ParseSafetensorsHeader(json, data_bytes, "f");
  if (!header) {
    if (header.error().problems().size() > 21) std::abort();
    return 0;
  }
  const std::string written = mergepipe::SerializeSafetensorsHeader(*header);
  if (written.size() % mergepipe::kDataAlignment != 0) std::abort();
  const auto again = ParseSafetensorsHeader(std::string_view(written).substr(8), data_bytes, "f");
  if (!again || *again != *header) std::abort();
  return 0;
}
