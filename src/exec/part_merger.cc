#include "exec/part_merger.h"

#include "exec/known_hashes.h"
#include "exec/transfers.h"
#include "mergepipe/kernels/parallel.h"

namespace mergepipe {
namespace {

// `blocks`: how many of the part are made.
void StartReport(const TensorPart& part, uint64_t blocks, PartReport& report) {
  report.tensor = part.tensor;
  report.begin = part.begin;
  report.block_hashes.resize(blocks);
  report.base_hashes.resize(blocks);
  report.inputs.resize(part.experts.size() + 1);
  report.differs.resize(part.experts.size());
  report.read_hashes.assign(part.experts.size(),
                            std::vector<Hash128>(part.merge ? part.end - part.begin : 0));
}

// Until here the hashes of what was read have a place for every block of the part.
void KeepReadBlocksOnly(const TensorPart& part, PartReport& report) {
  for (size_t k = 0; k < report.read_hashes.size(); ++k) {
    std::vector<Hash128> kept;
    for (uint64_t i = 0; i < report.read_hashes[k].size(); ++i) {
      if (part.selected[k].Contains(BlockIndex(part.begin + i)))
        kept.push_back(report.read_hashes[k][i]);
    }
    report.read_hashes[k] = std::move(kept);
  }
}

}  // namespace

PartMerger::PartMerger(FileSystem& files, Communicator& communicator, const Slice& slice,
                       const Strategy& strategy, const ExecLimits& limits, SourceFiles& sources,
                       OutputFiles& outputs)
    : communicator_(communicator),
      slice_(slice),
      strategy_(strategy),
      threads_(limits.threads),
      outputs_(outputs),
      memory_(slice, strategy, limits),
      inputs_(files, slice, sources, limits.threads),
      observer_(communicator, slice, strategy, memory_, inputs_, limits.threads) {}

Status PartMerger::Open(const TensorPart& part) {
  MERGEPIPE_RETURN_IF_ERROR(inputs_.Open(part));
  return outputs_.Open(part.out_file);
}

bool PartMerger::OnlyCompares(const TensorPart& part) const {
  return slice_.form == OutputForm::kSparse && part.compare;
}

Status PartMerger::WriteChunk(const TensorPart& part, const BlockMaker& maker, const Chunk& chunk) {
  const uint64_t block_bytes = slice_.block_size * DTypeSize(part.out_dtype);
  std::vector<FileWrite> runs;
  for (size_t first = 0; first < chunk.size();) {
    const bool from_out = maker.UsesOut(chunk.blocks[first]);
    size_t last = first + 1;
    while (last < chunk.size() && maker.UsesOut(chunk.blocks[last]) == from_out) ++last;
    const std::span<std::byte> bytes =
        from_out ? out_.Run(chunk, first, last) : inputs_.Base(chunk, first, last);
    runs.push_back({&outputs_.At(part.out_file),
                    part.out_offset + (chunk.blocks_before + first) * block_bytes, bytes});
    bytes_written_ += bytes.size();
    if (!from_out) bytes_copied_ += bytes.size();
    first = last;
  }
  return WriteAll(runs, threads_);
}

Status PartMerger::MakeChunk(const TensorPart& part, BlockMaker& maker, const Chunk& chunk,
                             PartReport& report) {
  out_.Reserve(chunk, part.out_dtype);
  if (part.sparse.present) {
    MERGEPIPE_RETURN_IF_ERROR(inputs_.LoadMade(part, chunk, out_));
  } else if (part.merge && !memory_.Holds(part)) {
    MERGEPIPE_RETURN_IF_ERROR(inputs_.LoadExperts(part, chunk));
  }
  std::vector<BlockCounts> counts(chunk.size());
  MERGEPIPE_RETURN_IF_ERROR(ParallelFor(chunk.size(), threads_, [&](uint64_t i) -> Status {
    counts[i] = maker.Make(chunk, i, out_);
    return {};
  }));
  for (const BlockCounts& block : counts) {
    for (size_t input = 0; input < report.inputs.size(); ++input)
      report.inputs[input] += block.inputs[input];
    report.made += block.made;
  }
  return WriteChunk(part, maker, chunk);
}

Result<PartOutcome> PartMerger::MakeBlocks(const TensorPart& part, const TensorMerge* tensor,
                                           PartReport& report) {
  BlockMaker maker(part, tensor, inputs_, report);
  const bool all = slice_.form == OutputForm::kFull || part.compare;
  return ForEachChunk(
      communicator_, part, {slice_.block_size, part.elements}, memory_.ChunkBlocks(part),
      all ? PassOver::kAllBlocks : PassOver::kTouchedBlocks, [&](const Chunk& chunk) -> Status {
        MERGEPIPE_RETURN_IF_ERROR(inputs_.LoadBase(part, chunk));
        if (part.compare) MERGEPIPE_RETURN_IF_ERROR(inputs_.Compare(part, chunk, report));
        return OnlyCompares(part) ? Status() : MakeChunk(part, maker, chunk, report);
      });
}

Result<PartOutcome> PartMerger::Merge(const TensorPart& part, PartReport& report) {
  if (const Status opened = Open(part); !opened) {
    Refuse(part);
    return tl::unexpected(opened.error());
  }
  const bool full = slice_.form == OutputForm::kFull;
  StartReport(part, full ? part.end - part.begin : part.touched.Count(), report);
  std::unique_ptr<TensorMerge> tensor;
  if (part.merge) tensor = strategy_.StartTensor({part.name, part.selected_elements});
  if (memory_.Observes(part)) {
    MERGEPIPE_ASSIGN_OR_RETURN(const PartOutcome outcome, observer_.Observe(part, *tensor));
    if (outcome == PartOutcome::kStopped) return outcome;
  }
  MERGEPIPE_ASSIGN_OR_RETURN(const PartOutcome outcome, MakeBlocks(part, tensor.get(), report));
  inputs_.Free();
  if (outcome == PartOutcome::kStopped) return outcome;
  KeepReadBlocksOnly(part, report);
  MERGEPIPE_RETURN_IF_ERROR(CheckKnownHashes(slice_, part, report));
  return outcome;
}

}  // namespace mergepipe
