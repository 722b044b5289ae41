#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "format/safetensors_index.h"

// Any index parses or is refused; what parses names plain files, sorted, and each tensor's is one
// of them.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const auto index = mergepipe::ParseSafetensorsIndex(json, "f");
  if (!index) return 0;
  if (index->files.empty() || !std::is_sorted(index->files.begin(), index->files.end()))
    std::abort();
  for (const std::string& file : index->files) {
    if (file.empty() || file == ".." || file.find('/') != std::string::npos) std::abort();
  }
  for (const auto& [tensor, file] : index->tensors) {
    if (file >= index->files.size()) std::abort();
  }
  return 0;
}
