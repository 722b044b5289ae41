#include "mergepipe/format/sparse.h"

#include <algorithm>

#include "mergepipe/base/little_endian.h"
#include "mergepipe/format/safetensors.h"

namespace mergepipe {
namespace {

uint64_t ElementsOf(const SparseTensor& tensor, const std::vector<uint64_t>& blocks,
                    uint64_t block_size) {
  if (blocks.empty()) return 0;
  const uint64_t elements = *CheckedProduct(tensor.shape);
  const uint64_t last = std::min(block_size, elements - blocks.back() * block_size);
  return (blocks.size() - 1) * block_size + last;
}

// Adds an entry after the last one; false if the file would pass 2^64 bytes.
bool AddEntry(const std::string& name, DType dtype, uint64_t elements, SafetensorsHeader& header) {
  const uint64_t begin = header.entries.empty() ? 0 : header.entries.back().end;
  const auto bytes = CheckedMultiply(elements, DTypeSize(dtype));
  const auto end = bytes ? CheckedAdd(begin, *bytes) : std::nullopt;
  if (end) header.entries.push_back({name, dtype, {elements}, begin, *end});
  return end.has_value();
}

Error TooLarge(std::string what) {
  return Error(ErrorKind::kBadInput, kSparseName, std::move(what),
               "choose a larger --block-size, or --output full");
}

}  // namespace

Result<OutputLayout> ComputeSparseLayout(const std::vector<SparseTensor>& tensors,
                                         uint64_t block_size, const Hash128& base_fingerprint) {
  SafetensorsHeader header{.metadata = {{"format", kSparseFormat},
                                        {"base_fingerprint", base_fingerprint.ToHex()},
                                        {"block_size", std::to_string(block_size)}},
                           .entries = {}};
  bool fits = true;
  std::string indexes;
  for (const SparseTensor& tensor : tensors) {
    if (tensor.blocks.empty()) continue;
    fits = fits && AddEntry(tensor.name + ".index", DType::kI64, tensor.blocks.size(), header);
    for (const uint64_t block : tensor.blocks) AppendLittleEndian(block, indexes);
  }
  OutputLayout layout;
  for (const SparseTensor& tensor : tensors) {
    const uint64_t offset = header.entries.empty() ? 0 : header.entries.back().end;
    layout.tensors.push_back({tensor.name, tensor.dtype, tensor.shape, 0, offset});
    if (tensor.blocks.empty()) continue;
    fits = fits && AddEntry(tensor.name + ".blocks", tensor.dtype,
                            ElementsOf(tensor, tensor.blocks, block_size), header);
  }
  if (!fits) return tl::unexpected(TooLarge("would be more than 2^64 bytes"));

  std::string text = SerializeSafetensorsHeader(header);
  const uint64_t data_begin = text.size();
  if (data_begin - 8 > kMaxHeaderBytes) {
    return tl::unexpected(
        TooLarge("its header would be longer than " + std::to_string(kMaxHeaderBytes) + " bytes"));
  }
  const uint64_t data_size = header.entries.empty() ? 0 : header.entries.back().end;
  const auto size = CheckedAdd(data_begin, data_size);
  if (!size) return tl::unexpected(TooLarge("would be more than 2^64 bytes"));
  for (TensorInfo& tensor : layout.tensors) tensor.offset += data_begin;
  layout.files.push_back({kSparseName, std::move(text) + indexes, *size});
  return layout;
}

}  // namespace mergepipe
