#include "exec/block_maker.h"

#include <array>

#include "mergepipe/kernels/convert.h"
#include "mergepipe/kernels/nonfinite.h"
#include "mergepipe/kernels/output.h"

namespace mergepipe {
namespace {

constexpr size_t kTile = 4096;

NonFiniteCount ToReport(const NonFinite& count) { return {count.nan, count.inf}; }

// Base and merged delta to the output's type, a tile at a time.
NonFiniteCount WriteBlock(StoredBlock base, std::span<const float> merged, DType out_dtype,
                          std::span<std::byte> out) {
  const uint64_t in_size = DTypeSize(base.dtype);
  const uint64_t out_size = DTypeSize(out_dtype);
  std::array<float, kTile> values;
  NonFiniteCount made;
  for (uint64_t at = 0; at < merged.size(); at += kTile) {
    const uint64_t count = std::min<uint64_t>(kTile, merged.size() - at);
    const auto tile = base.bytes.subspan(at * in_size, count * in_size);
    const std::span<float> tile_values(values.data(), count);
    ToFloat(base.dtype, tile, tile_values);
    made += ToReport(WriteMerged({base.dtype, tile, tile_values}, merged.subspan(at, count),
                                 out_dtype, out.subspan(at * out_size, count * out_size)));
  }
  return made;
}

}  // namespace

NonFiniteCount BlockMaker::Merge(const Chunk& chunk, size_t i, std::span<std::byte> out,
                                 std::vector<NonFiniteCount>& counts) {
  const uint64_t block = chunk.blocks[i];
  const StoredBlockDeltas deltas = inputs_.Deltas(part_, chunk, i);
  for (const ExpertIndex expert : deltas.experts()) {
    const auto bytes = inputs_.Expert(expert.value, block);
    counts[1 + expert.value] = ToReport(CountNonFinite(part_.experts[expert.value].dtype, bytes));
    report_.read_hashes[expert.value][block - part_.begin] = HashBytes(bytes);
  }
  static thread_local std::vector<float> merged;
  merged.resize(deltas.size());
  tensor_->Apply(deltas, merged);
  return WriteBlock({part_.base.dtype, inputs_.Base(chunk, i, i + 1)}, merged, part_.out_dtype,
                    out);
}

BlockCounts BlockMaker::Make(const Chunk& chunk, size_t i, ChunkBuffer& buffer) {
  const std::span<std::byte> stored = inputs_.Base(chunk, i, i + 1);
  const bool touched = part_.touched.Contains(BlockIndex(chunk.blocks[i]));
  BlockCounts counts{std::vector<NonFiniteCount>(report_.inputs.size()), {}};
  const bool taken_over = touched && part_.sparse.present;  // the sparse output's record counted it
  if (IsFloat(part_.base.dtype) && !taken_over)
    counts.inputs[0] = ToReport(CountNonFinite(part_.base.dtype, stored));
  const bool uses_out = UsesOut(chunk.blocks[i]);
  const std::span<std::byte> out = uses_out ? buffer.Block(chunk, i) : stored;
  if (touched && !taken_over) {
    counts.made = Merge(chunk, i, out, counts.inputs);
  } else if (uses_out && !taken_over) {
    counts.made = ToReport(ConvertStored(part_.base.dtype, stored, part_.out_dtype, out));
  }
  const uint64_t position = chunk.blocks_before + i;
  const Hash128 base_hash = HashBytes(stored);
  report_.base_hashes[position] = base_hash;
  report_.block_hashes[position] = uses_out ? HashBytes(out) : base_hash;
  return counts;
}

}  // namespace mergepipe
