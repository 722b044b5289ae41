#include "run/source_tables.h"

namespace mergepipe {

std::vector<SourceFile> SourceFilesOf(const ModelLayout& layout) {
  std::vector<SourceFile> files;
  for (uint32_t i = 0; i < layout.files.size(); ++i) {
    const ModelFile& file = layout.files[i];
    files.push_back({layout.FilePath(i), file.info.size, file.info.mtime_ns, file.data_begin});
  }
  return files;
}

SourceTensor SourceOf(const TensorInfo& tensor) {
  return {true, tensor.dtype, tensor.file, tensor.offset};
}

SourceTensor UsedFiles::Use(SourceTensor tensor) {
  if (!tensor.present) return tensor;
  const auto [place, added] =
      places_.try_emplace(tensor.file, static_cast<uint32_t>(files_.size()));
  if (added) files_.push_back((*all_)[tensor.file]);
  tensor.file = place->second;
  return tensor;
}

TensorsByName IndexTensors(const ModelLayout& layout) {
  TensorsByName by_name;
  for (const TensorInfo& tensor : layout.tensors) by_name.emplace(tensor.name, &tensor);
  return by_name;
}

}  // namespace mergepipe
