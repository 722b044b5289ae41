#include <cstdint>
#include <cstdlib>

#include "mergepipe/format/output_layout.h"
#include "mergepipe/format/side_files.h"
#include "support/memory_file_system.h"

namespace {

using namespace mergepipe;

constexpr const char* kNames[] = {"model.safetensors.index.json", "config.json", "a.safetensors",
                                  "b.safetensors", "model.safetensors"};

// A directory of files, each in the input: its name's number, three bytes for its length, and its
// bytes.
void Fill(MemoryFileSystem& files, const uint8_t* data, size_t size) {
  if (!files.CreateDirectories("/m")) std::abort();
  while (size >= 4) {
    const size_t length = std::min<size_t>(data[1] + 256u * data[2] + 65536u * data[3], size - 4);
    const std::string path = JoinPath("/m", kNames[data[0] % std::size(kNames)]);
    const std::string text(reinterpret_cast<const char*>(data) + 4, length);
    data += 4 + length;
    size -= 4 + length;
    if (*files.Exists(path)) continue;
    if (!WriteNewFile(files, path, text)) std::abort();
  }
}

}  // namespace

// Any checkpoint directory is read or refused; what is read lies within its files, can be
// fingerprinted, and its output can be laid out.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  MemoryFileSystem files;
  Fill(files, data, size);
  if (!ListSideFiles(files, "/m")) std::abort();
  const auto model = ReadModel(files, "/m");
  if (!model) return 0;
  for (const TensorInfo& tensor : model->tensors) {
    const uint64_t file_size = model->files.at(tensor.file).info.size;
    if (tensor.bytes() > file_size || tensor.offset > file_size - tensor.bytes()) std::abort();
  }
  if (!TakeFingerprint(files, *model)) std::abort();
  for (const auto dtype : {std::optional<DType>(), std::optional(DType::kF64)}) {
    const auto layout = ComputeOutputLayout(*model, dtype);
    if (!layout || layout->tensors.size() != model->tensors.size()) std::abort();
    if (!model->index_name) continue;
    const auto text = ReadSmallFile(files, JoinPath("/m", *model->index_name), UINT32_MAX);
    if (!text || !IndexText(*layout, *text, "f")) std::abort();
  }
  return 0;
}
