#include "run/sparse_output.h"

namespace mergepipe {
namespace {

SparseTensor MakeTensor(const std::string& name, DType dtype, const std::vector<uint64_t>& shape,
                        const BlockSet& touched) {
  SparseTensor tensor{name, dtype, shape, {}};
  tensor.blocks.reserve(touched.Count());
  touched.ForEachRun([&](BlockIndex first, BlockIndex last) {
    for (uint64_t block = first.value; block < last.value; ++block) tensor.blocks.push_back(block);
  });
  return tensor;
}

}  // namespace

Result<OutputLayout> SparseLayoutOf(const Plan& plan) {
  const uint64_t block_size = plan.options.block_size;
  std::vector<SparseTensor> tensors;
  for (const PlannedTensor& tensor : plan.tensors) {
    tensors.push_back(
        MakeTensor(tensor.name, tensor.out_dtype, tensor.shape, tensor.Touched(block_size)));
  }
  return ComputeSparseLayout(tensors, block_size, plan.base.fingerprint);
}

Result<OutputLayout> SparseLayoutOf(const Manifest& manifest) {
  std::vector<SparseTensor> tensors;
  for (const ManifestTensor& tensor : manifest.tensors)
    tensors.push_back(MakeTensor(tensor.name, tensor.dtype, tensor.shape, tensor.Touched()));
  return ComputeSparseLayout(tensors, manifest.block_size, manifest.base.fingerprint);
}

Result<std::string> ReadSparseHead(FileSystem& files, const std::string& path,
                                   const OutputLayout& layout) {
  const OutputFile& expected = layout.files[0];
  MERGEPIPE_ASSIGN_OR_RETURN(const auto file, files.OpenForReading(path));
  if (file->size() != expected.size) {
    return Fail(ErrorKind::kBadInput, path,
                "has " + std::to_string(file->size()) + " bytes, its manifest says " +
                    std::to_string(expected.size),
                "the file is damaged; restore it, or merge again");
  }
  std::string head(expected.header.size(), '\0');
  MERGEPIPE_RETURN_IF_ERROR(file->ReadAt(0, std::as_writable_bytes(std::span(head))));
  return head;
}

}  // namespace mergepipe
