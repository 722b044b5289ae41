#include "exec/part_merger.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "exec/block_deltas.h"
#include "exec/shared_statistics.h"
#include "mergepipe/base/checked.h"
#include "mergepipe/kernels/convert.h"
#include "mergepipe/kernels/nonfinite.h"
#include "mergepipe/kernels/output.h"
#include "mergepipe/kernels/parallel.h"

namespace mergepipe {
namespace {

// What the process takes besides the buffers: code, MPI, headers and reports.
constexpr uint64_t kBaselineMemory = 128 * kMiB;
// One histogram of a tensor's magnitudes, for one expert and thread.
constexpr uint64_t kStatisticsMemory = kMiB / 2;
constexpr uint64_t kTargetChunkBytes = 16 * kMiB;
constexpr size_t kTile = 4096;

NonFiniteCount ToReport(const NonFinite& count) { return {count.nan, count.inf}; }

uint64_t SelectedTotal(const TensorPart& part) {
  uint64_t elements = 0;
  for (const uint64_t selected : part.selected_elements) elements += selected;
  return elements;
}

bool IsTouched(const TensorPart& part, uint64_t block) {
  return part.merge &&
         std::any_of(part.selected.begin(), part.selected.end(),
                     [&](const BlockSet& blocks) { return blocks.Contains(BlockIndex(block)); });
}

// Reads or writes a long run in pieces, on all threads.
template <typename Span, typename Transfer>
Status InPieces(Span bytes, uint64_t offset, int threads, Transfer&& transfer) {
  const uint64_t pieces = CeilDivide(bytes.size(), kTargetChunkBytes);
  return ParallelFor(pieces, threads, [&](uint64_t i) {
    const uint64_t at = i * kTargetChunkBytes;
    return transfer(offset + at,
                    bytes.subspan(at, std::min<uint64_t>(kTargetChunkBytes, bytes.size() - at)));
  });
}

void StartReport(const TensorPart& part, PartReport& report) {
  const uint64_t blocks = part.end - part.begin;
  report.tensor = part.tensor;
  report.begin = part.begin;
  report.block_hashes.resize(blocks);
  report.base_hashes.resize(blocks);
  report.inputs.resize(part.experts.size() + 1);
  report.differs.resize(part.experts.size());
  report.read_hashes.assign(part.experts.size(), std::vector<Hash128>(part.merge ? blocks : 0));
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

PartMerger::PartMerger(Communicator& communicator, const Slice& slice, const Strategy& strategy,
                       const ExecLimits& limits, SourceFiles& sources, OutputFiles& outputs)
    : communicator_(communicator),
      slice_(slice),
      strategy_(strategy),
      limits_(limits),
      sources_(sources),
      outputs_(outputs),
      fixed_memory_(FixedMemory()) {
  // Statistics take at most a quarter of what is left; fewer groups observe with fewer threads, to
  // the same result.
  const uint64_t left =
      limits_.memory_bytes > fixed_memory_ ? limits_.memory_bytes - fixed_memory_ : 0;
  groups_ = static_cast<uint64_t>(limits_.threads);
  while (groups_ > 1 && StatisticsOf(groups_) > left / 4) --groups_;
}

bool PartMerger::Observes(const TensorPart& part) const {
  return part.merge && strategy_.ObservationRounds() > 0 && SelectedTotal(part) > 0;
}

uint64_t PartMerger::HeldBytes() const {
  uint64_t held = 0;
  for (const TensorPart& part : slice_.parts) {
    if (Holds(part))
      held = std::max(held, ExpertWindow::SizeOf(part, GeometryOf(part), part.begin, part.end));
  }
  return held;
}

// Hashes of every block that is made or read.
uint64_t PartMerger::ReportMemory() const {
  uint64_t hashes = 0;
  for (const TensorPart& part : slice_.parts) {
    const uint64_t inputs = part.merge ? part.experts.size() : 0;
    hashes += (part.end - part.begin) * (2 + inputs);
  }
  return hashes * sizeof(Hash128);
}

uint64_t PartMerger::StatisticsOf(uint64_t groups) const {
  if (strategy_.ObservationRounds() == 0) return 0;
  return (groups + 2) * slice_.expert_files.size() *
         kStatisticsMemory;  // and the sums of chunk and tensor
}

uint64_t PartMerger::FixedMemory() const {
  const uint64_t merged =
      static_cast<uint64_t>(limits_.threads) * slice_.block_size * sizeof(float);
  return kBaselineMemory + merged + HeldBytes() + ReportMemory();
}

uint64_t PartMerger::BlockMemory(const TensorPart& part) const {
  const uint64_t elements = std::min(part.elements, slice_.block_size);
  uint64_t bytes = DTypeSize(part.base.dtype) + DTypeSize(part.out_dtype);
  for (const SourceTensor& expert : part.experts) {
    if (expert.present && !Holds(part)) bytes += DTypeSize(expert.dtype);
  }
  return elements * bytes;
}

uint64_t PartMerger::ChunkBlocks(const TensorPart& part) const {
  const uint64_t base_block = std::max<uint64_t>(1, slice_.block_size * DTypeSize(part.base.dtype));
  const uint64_t wanted = std::max(CeilDivide(kTargetChunkBytes, base_block),
                                   2 * static_cast<uint64_t>(limits_.threads));
  const uint64_t fixed = fixed_memory_ + StatisticsOf(groups_);
  const uint64_t left = limits_.memory_bytes > fixed ? limits_.memory_bytes - fixed : 0;
  return std::clamp<uint64_t>(left / std::max<uint64_t>(1, BlockMemory(part)), 1, wanted);
}

Status PartMerger::CheckMemory() const {
  uint64_t block = 0;
  for (const TensorPart& part : slice_.parts) block = std::max(block, BlockMemory(part));
  const uint64_t needed = fixed_memory_ + StatisticsOf(1) + block;
  if (needed <= limits_.memory_bytes) return {};
  return Fail(ErrorKind::kNoSpace, "--memory-mb",
              FormatBytes(Bytes(limits_.memory_bytes)) +
                  " cannot hold what this rank needs at a time, " + FormatBytes(Bytes(needed)),
              "give at least " + std::to_string(CeilDivide(needed, kMiB)) +
                  " MiB, or lower --resident-mb, --block-size or --threads, or use more ranks");
}

Result<PartOutcome> PartMerger::ForEachChunk(
    const TensorPart& part, const std::function<Status(uint64_t, uint64_t)>& visit) {
  const uint64_t step = ChunkBlocks(part);
  for (uint64_t begin = part.begin; begin < part.end; begin += step) {
    if (communicator_.FailureAnnounced()) return PartOutcome::kStopped;
    MERGEPIPE_RETURN_IF_ERROR(visit(begin, std::min(part.end, begin + step)));
  }
  return PartOutcome::kDone;
}

std::span<std::byte> PartMerger::BlockOf(AlignedBuffer& buffer, const TensorPart& part, DType dtype,
                                         uint64_t chunk_begin, uint64_t block) {
  const BlockGeometry geometry = GeometryOf(part);
  return {buffer.data() + geometry.ElementsBetween(chunk_begin, block) * DTypeSize(dtype),
          geometry.Elements(block) * DTypeSize(dtype)};
}

StoredBlockDeltas PartMerger::DeltasOf(const TensorPart& part, uint64_t chunk_begin,
                                       uint64_t block) {
  const BlockGeometry geometry = GeometryOf(part);
  StoredBlockDeltas deltas(
      geometry.FirstElement(block), geometry.Elements(block),
      {part.base.dtype, BlockOf(base_, part, part.base.dtype, chunk_begin, block)});
  for (size_t k = 0; k < part.experts.size(); ++k) {
    if (!part.selected[k].Contains(BlockIndex(block))) continue;
    deltas.AddExpert(ExpertIndex(static_cast<uint32_t>(k)),
                     {part.experts[k].dtype, window_.Block(k, block)});
  }
  return deltas;
}

Status PartMerger::LoadBase(const TensorPart& part, uint64_t begin, uint64_t end) {
  const BlockGeometry geometry = GeometryOf(part);
  const uint64_t size = DTypeSize(part.base.dtype);
  const uint64_t bytes = geometry.ElementsBetween(begin, end) * size;
  base_.Reserve(bytes);
  ReadableFile& file = sources_.Base(part.base.file);
  return InPieces(
      base_.First(bytes), part.base.offset + geometry.FirstElement(begin) * size, limits_.threads,
      [&](uint64_t offset, std::span<std::byte> out) { return file.ReadAt(offset, out); });
}

Status PartMerger::LoadExperts(const TensorPart& part, uint64_t begin, uint64_t end) {
  return window_.Load(sources_, part, GeometryOf(part), begin, end, limits_.threads);
}

Status PartMerger::ObserveChunk(const TensorPart& part, const TensorMerge& tensor, int round,
                                uint64_t begin, uint64_t end, TensorStatistics& sum) {
  bool any_touched = false;
  for (uint64_t block = begin; block < end && !any_touched; ++block)
    any_touched = IsTouched(part, block);
  if (!any_touched) return {};
  MERGEPIPE_RETURN_IF_ERROR(LoadBase(part, begin, end));
  if (!Holds(part)) MERGEPIPE_RETURN_IF_ERROR(LoadExperts(part, begin, end));
  // Each thread observes consecutive blocks, and their statistics are appended in block order.
  const uint64_t groups = std::min<uint64_t>(end - begin, groups_);
  std::vector<std::unique_ptr<TensorStatistics>> statistics(groups);
  MERGEPIPE_RETURN_IF_ERROR(ParallelFor(groups, limits_.threads, [&](uint64_t g) -> Status {
    statistics[g] = tensor.NewStatistics(round);
    const uint64_t first = begin + (end - begin) * g / groups;
    const uint64_t last = begin + (end - begin) * (g + 1) / groups;
    for (uint64_t block = first; block < last; ++block) {
      if (IsTouched(part, block))
        tensor.Observe(round, DeltasOf(part, begin, block), *statistics[g]);
    }
    return {};
  }));
  for (const auto& next : statistics) sum.Append(*next);
  return {};
}

Result<PartOutcome> PartMerger::ObserveRound(const TensorPart& part, const TensorMerge& tensor,
                                             int round, TensorStatistics& statistics) {
  if (round == 0 && Holds(part)) MERGEPIPE_RETURN_IF_ERROR(LoadExperts(part, part.begin, part.end));
  return ForEachChunk(part, [&](uint64_t begin, uint64_t end) {
    return ObserveChunk(part, tensor, round, begin, end, statistics);
  });
}

Result<PartOutcome> PartMerger::ObserveRounds(const TensorPart& part, TensorMerge& tensor) {
  for (int round = 0; round < strategy_.ObservationRounds(); ++round) {
    auto statistics = tensor.NewStatistics(round);
    Outcome outcome = ObserveRound(part, tensor, round, *statistics);
    const bool done = outcome && *outcome == PartOutcome::kDone;
    if (part.shared()) {
      // The other ranks wait for this one's statistics, also when there are none.
      auto shared = ShareStatistics(communicator_, part, tensor, round,
                                    done ? std::move(statistics) : nullptr);
      if (!done) return outcome;
      if (!shared) {
        const bool more = round + 1 < strategy_.ObservationRounds();
        if (more && communicator_.rank() != Rank(part.first_rank)) {
          static_cast<void>(ShareStatistics(communicator_, part, tensor, round + 1, nullptr));
        }
        return tl::unexpected(shared.error());
      }
      statistics = std::move(*shared);
    }
    if (!done) return outcome;
    if (!statistics) return PartOutcome::kStopped;
    MERGEPIPE_RETURN_IF_ERROR(tensor.Finish(round, *statistics));
  }
  return PartOutcome::kDone;
}

Status PartMerger::MakeBlock(const TensorPart& part, const TensorMerge* tensor,
                             uint64_t chunk_begin, uint64_t block, PartReport& report,
                             std::vector<NonFiniteCount>& counts) {
  const std::span<std::byte> stored = BlockOf(base_, part, part.base.dtype, chunk_begin, block);
  const bool is_float = IsFloat(part.base.dtype);
  if (is_float) counts[0] = ToReport(CountNonFinite(part.base.dtype, stored));
  std::span<std::byte> out = stored;
  NonFiniteCount made;
  if (tensor != nullptr && IsTouched(part, block)) {
    const StoredBlockDeltas deltas = DeltasOf(part, chunk_begin, block);
    for (const ExpertIndex expert : deltas.experts()) {
      const auto bytes = window_.Block(expert.value, block);
      counts[1 + expert.value] = ToReport(CountNonFinite(part.experts[expert.value].dtype, bytes));
      report.read_hashes[expert.value][block - part.begin] = HashBytes(bytes);
    }
    static thread_local std::vector<float> merged;
    merged.resize(deltas.size());
    tensor->Apply(deltas, merged);
    out = BlockOf(out_, part, part.out_dtype, chunk_begin, block);
    const uint64_t in_size = DTypeSize(part.base.dtype);
    const uint64_t out_size = DTypeSize(part.out_dtype);
    std::array<float, kTile> values;
    for (uint64_t at = 0; at < deltas.size(); at += kTile) {
      const uint64_t count = std::min<uint64_t>(kTile, deltas.size() - at);
      const auto tile = stored.subspan(at * in_size, count * in_size);
      const std::span<float> tile_values(values.data(), count);
      ToFloat(part.base.dtype, tile, tile_values);
      made += ToReport(WriteMerged({part.base.dtype, tile, tile_values},
                                   std::span(merged).subspan(at, count), part.out_dtype,
                                   out.subspan(at * out_size, count * out_size)));
    }
  } else if (part.out_dtype != part.base.dtype) {
    out = BlockOf(out_, part, part.out_dtype, chunk_begin, block);
    made = ToReport(ConvertStored(part.base.dtype, stored, part.out_dtype, out));
  }
  counts.back() = made;
  const Hash128 base_hash = HashBytes(stored);
  report.base_hashes[block - part.begin] = base_hash;
  report.block_hashes[block - part.begin] =
      out.data() == stored.data() ? base_hash : HashBytes(out);
  return {};
}

Status PartMerger::CompareChunk(const TensorPart& part, uint64_t begin, uint64_t end,
                                PartReport& report) {
  const BlockGeometry geometry = GeometryOf(part);
  const uint64_t size = DTypeSize(part.base.dtype);
  const uint64_t bytes = geometry.ElementsBetween(begin, end) * size;
  compared_.Reserve(bytes);
  for (size_t k = 0; k < part.experts.size(); ++k) {
    const SourceTensor& source = part.experts[k];
    if (!source.present) continue;
    MERGEPIPE_RETURN_IF_ERROR(
        sources_.ExpertForComparing(k, source.file)
            .ReadAt(source.offset + geometry.FirstElement(begin) * size, compared_.First(bytes)));
    if (bytes > 0 && std::memcmp(compared_.data(), base_.data(), bytes) != 0) report.differs[k] = 1;
  }
  return {};
}

Status PartMerger::WriteChunk(const TensorPart& part, uint64_t begin, uint64_t end) {
  const BlockGeometry geometry = GeometryOf(part);
  const uint64_t size = DTypeSize(part.out_dtype);
  const bool converts = part.out_dtype != part.base.dtype;
  WritableFile& file = outputs_.At(part.out_file);
  for (uint64_t first = begin; first < end;) {
    const bool from_out = converts || IsTouched(part, first);
    uint64_t last = first + 1;
    while (last < end && (converts || IsTouched(part, last)) == from_out) ++last;
    const uint64_t bytes = geometry.ElementsBetween(first, last) * size;
    const std::byte* data =
        BlockOf(from_out ? out_ : base_, part, part.out_dtype, begin, first).data();
    MERGEPIPE_RETURN_IF_ERROR(
        InPieces(std::span(data, bytes), part.out_offset + geometry.FirstElement(first) * size,
                 limits_.threads, [&](uint64_t offset, std::span<const std::byte> piece) {
                   return file.WriteAt(offset, piece);
                 }));
    bytes_written_ += bytes;
    if (!from_out) bytes_copied_ += bytes;
    first = last;
  }
  return {};
}

Result<PartOutcome> PartMerger::MakeBlocks(const TensorPart& part, const TensorMerge* tensor,
                                           PartReport& report) {
  return ForEachChunk(part, [&](uint64_t begin, uint64_t end) -> Status {
    MERGEPIPE_RETURN_IF_ERROR(LoadBase(part, begin, end));
    if (tensor != nullptr && !Holds(part)) MERGEPIPE_RETURN_IF_ERROR(LoadExperts(part, begin, end));
    if (part.compare) MERGEPIPE_RETURN_IF_ERROR(CompareChunk(part, begin, end, report));
    out_.Reserve(GeometryOf(part).ElementsBetween(begin, end) * DTypeSize(part.out_dtype));
    std::vector<std::vector<NonFiniteCount>> counts(
        end - begin, std::vector<NonFiniteCount>(part.experts.size() + 2));
    MERGEPIPE_RETURN_IF_ERROR(ParallelFor(end - begin, limits_.threads, [&](uint64_t i) {
      return MakeBlock(part, tensor, begin, begin + i, report, counts[i]);
    }));
    for (const auto& block : counts) {
      for (size_t input = 0; input < report.inputs.size(); ++input)
        report.inputs[input] += block[input];
      report.made += block.back();
    }
    return WriteChunk(part, begin, end);
  });
}

Status PartMerger::Open(const TensorPart& part) {
  MERGEPIPE_RETURN_IF_ERROR(sources_.OpenFor(part));
  return outputs_.Open(part.out_file);
}

Result<PartOutcome> PartMerger::Merge(const TensorPart& part, PartReport& report) {
  if (const Status opened = Open(part); !opened) {
    Refuse(part);
    return tl::unexpected(opened.error());
  }
  StartReport(part, report);
  std::unique_ptr<TensorMerge> tensor;
  if (part.merge) tensor = strategy_.StartTensor({part.name, part.selected_elements});
  if (Observes(part)) {
    MERGEPIPE_ASSIGN_OR_RETURN(const PartOutcome outcome, ObserveRounds(part, *tensor));
    if (outcome == PartOutcome::kStopped) return outcome;
  }
  MERGEPIPE_ASSIGN_OR_RETURN(const PartOutcome outcome, MakeBlocks(part, tensor.get(), report));
  window_.Free();
  if (outcome == PartOutcome::kStopped) return outcome;
  KeepReadBlocksOnly(part, report);
  return outcome;
}

void PartMerger::Refuse(const TensorPart& part) {
  if (!part.shared() || !Observes(part)) return;
  const auto tensor = strategy_.StartTensor({part.name, part.selected_elements});
  // This rank has an error of its own, or knows of another's.
  static_cast<void>(ShareStatistics(communicator_, part, *tensor, 0, nullptr));
}

}  // namespace mergepipe
