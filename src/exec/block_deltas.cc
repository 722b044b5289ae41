#include "exec/block_deltas.h"

#include "mergepipe/kernels/delta.h"

namespace mergepipe {
namespace {

StoredElements Part(const StoredBlock& block, uint64_t begin, size_t count) {
  const uint64_t size = DTypeSize(block.dtype);
  return {block.dtype, block.bytes.subspan(begin * size, count * size)};
}

}  // namespace

void StoredBlockDeltas::AddExpert(ExpertIndex expert, StoredBlock block) {
  experts_.push_back(expert);
  blocks_.push_back(block);
}

void StoredBlockDeltas::Delta(size_t slot, uint64_t begin, std::span<float> out) const {
  ComputeDelta(Part(blocks_[slot], begin, out.size()), Part(base_, begin, out.size()), out);
}

}  // namespace mergepipe
