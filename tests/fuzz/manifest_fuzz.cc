#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "json_mutation.h"
#include "mergepipe/format/safetensors.h"
#include "mergepipe/manifest/manifest_codec.h"
#include "mergepipe/plan/record_json.h"
#include "run/sparse_output.h"

namespace {

using mergepipe::Manifest;

constexpr mergepipe::record::Kind kManifest = {"manifest", "manifest_hash", nullptr};
// A layout holds 8 bytes for each touched block.
constexpr uint64_t kMostBlocks = 1 << 20;

void CheckName(const std::string& name) {
  const std::string slashed = "/" + name + "/";
  if (name.empty() || name.front() == '/' || slashed.find("/../") != std::string::npos)
    std::abort();
}

void CheckNames(const Manifest& manifest) {
  CheckName(manifest.run_id);
  if (manifest.run_id.find('/') != std::string::npos) std::abort();
  for (const auto& file : manifest.files) CheckName(file.name);
  for (const auto& file : manifest.side_files) CheckName(file.name);
}

// The header that follows from the manifest is one, and says where the layout has the blocks.
void CheckSparseLayout(const Manifest& manifest) {
  uint64_t blocks = 0;
  for (const auto& tensor : manifest.tensors) blocks += tensor.touched_blocks;
  if (blocks > kMostBlocks) return;
  const auto layout = mergepipe::SparseLayoutOf(manifest);
  if (!layout) return;
  const auto& file = layout->files.at(0);
  uint64_t length = 0;
  for (size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(file.header[i]);
  const auto header = mergepipe::ParseSafetensorsHeader(
      std::string_view(file.header).substr(8, length), file.size - 8 - length, "f");
  if (!header) return;  // names may come twice or be empty: such a file is then refused
  for (const auto& tensor : layout->tensors) {
    const auto entry = std::find_if(
        header->entries.begin(), header->entries.end(),
        [&](const auto& candidate) { return candidate.name == tensor.name + ".blocks"; });
    if (entry != header->entries.end() && 8 + length + entry->begin != tensor.offset) std::abort();
  }
}

void Check(const std::string& text) {
  const auto manifest = mergepipe::ParseManifest(text, "f");
  if (!manifest) return;
  const std::string written = mergepipe::SerializeManifest(*manifest);
  const auto again = mergepipe::ParseManifest(written, "f");
  if (!again || *again != *manifest || mergepipe::SerializeManifest(*again) != written)
    std::abort();
  CheckNames(*manifest);
  CheckSparseLayout(*manifest);
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  return mergepipe::fuzz::MutateJson(data, size, max_size, seed);
}

// As plan_fuzz; and the layout of a sparse output holds together for any manifest.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  Check(text);
  auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) Check(mergepipe::record::ToText(kManifest, std::move(json)));
  return 0;
}
