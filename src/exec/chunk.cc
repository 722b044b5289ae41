#include "exec/chunk.h"

namespace mergepipe {

uint64_t Chunk::Elements(size_t first, size_t last) const {
  // Only a tensor's last block may be shorter.
  if (first == last) return 0;
  return (last - first - 1) * geometry.block_size + geometry.Elements(blocks[last - 1]);
}

size_t Chunk::EndOfRun(size_t first) const {
  size_t last = first + 1;
  while (last < size() && blocks[last] == blocks[last - 1] + 1) ++last;
  return last;
}

void ChunkBuffer::Reserve(const Chunk& chunk, DType dtype) {
  element_size_ = DTypeSize(dtype);
  buffer_.Reserve(chunk.Elements(0, chunk.size()) * element_size_);
}

std::span<std::byte> ChunkBuffer::Run(const Chunk& chunk, size_t first, size_t last) {
  return {buffer_.data() + first * chunk.geometry.block_size * element_size_,
          chunk.Elements(first, last) * element_size_};
}

}  // namespace mergepipe
