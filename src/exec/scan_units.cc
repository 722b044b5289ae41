#include "exec/scan_units.h"

#include <algorithm>

#include "mergepipe/base/checked.h"
#include "mergepipe/base/units.h"
#include "mergepipe/plan/statistics.h"

namespace mergepipe {
namespace {

// What the process takes besides the buffers: code, MPI, headers.
constexpr uint64_t kBaselineMemory = 128 * kMiB;
// Bytes of the base in a unit.
constexpr uint64_t kTargetUnitBytes = 8 * kMiB;
// Disks and network filesystems reach their bandwidth with several transfers at a time.
constexpr int kTransfers = 4;

uint64_t LargestExpertElement(const ScanPart& part) {
  uint64_t size = 0;
  for (const SourceTensor& expert : part.experts) {
    if (expert.present) size = std::max(size, DTypeSize(expert.dtype));
  }
  return size;
}

// Of a block of base and one expert: those of a thread are read one after the other.
uint64_t BlockMemory(const ScanSlice& slice, const ScanPart& part) {
  return PieceOf(slice, part, 0).count * (DTypeSize(part.base.dtype) + LargestExpertElement(part));
}

uint64_t ReportMemory(const ScanPart& part) {
  uint64_t bytes = sizeof(uint64_t) + (part.wants_base ? sizeof(BaseBlockStatistics) : 0);
  for (const SourceTensor& expert : part.experts) {
    if (expert.present) bytes += sizeof(BlockStatistics);
  }
  return part.blocks.Count() * bytes;
}

struct MemoryNeeds {
  uint64_t fixed = kBaselineMemory;
  uint64_t block = 0;  ///< the largest
};

MemoryNeeds NeedsOf(const ScanSlice& slice) {
  MemoryNeeds needs;
  for (const ScanPart& part : slice.parts) {
    if (!IsRead(part)) continue;
    needs.fixed += ReportMemory(part);
    needs.block = std::max(needs.block, BlockMemory(slice, part));
  }
  return needs;
}

Status CheckMemory(const MemoryNeeds& needs, uint64_t limit) {
  const uint64_t needed = needs.fixed + needs.block;
  if (needed <= limit) return {};
  return Fail(ErrorKind::kNoSpace, "--memory-mb",
              FormatBytes(Bytes(limit)) + " cannot hold what this rank needs at a time, " +
                  FormatBytes(Bytes(needed)),
              "give at least " + std::to_string(CeilDivide(needed, kMiB)) +
                  " MiB, or lower --block-size, or use more ranks");
}

std::vector<uint64_t> WantedBlocks(const BlockSet& set) {
  std::vector<uint64_t> blocks;
  blocks.reserve(set.Count());
  set.ForEachRun([&](BlockIndex begin, BlockIndex end) {
    for (BlockIndex block = begin; block < end; ++block) blocks.push_back(block.value);
  });
  return blocks;
}

}  // namespace

ScanPiece PieceOf(const ScanSlice& slice, const ScanPart& part, uint64_t block) {
  const uint64_t first = block * slice.block_size;
  const uint64_t elements = std::min(part.elements - first, slice.block_size);
  if (!slice.probe) return {first, elements};
  const BlockSample sample = ProbeSample(elements, part.base.dtype);
  return {first + sample.first, sample.count};
}

bool IsRead(const ScanPart& part) {
  const bool wanted = part.wants_base || std::ranges::any_of(part.experts, &SourceTensor::present);
  return wanted && !part.blocks.Empty();
}

Result<ScanUnits> CutScan(const ScanSlice& slice, const ExecLimits& limits) {
  const MemoryNeeds needs = NeedsOf(slice);
  MERGEPIPE_RETURN_IF_ERROR(CheckMemory(needs, limits.memory_bytes));
  ScanUnits cut;
  // Fewer workers rather than none where little memory is left.
  const uint64_t left = limits.memory_bytes - needs.fixed;
  cut.computing = std::max(1, limits.threads);
  const uint64_t wanted = static_cast<uint64_t>(cut.computing) + kTransfers;
  const uint64_t workers =
      std::clamp<uint64_t>(left / std::max<uint64_t>(1, needs.block), 1, wanted);
  cut.workers = static_cast<int>(workers);
  cut.blocks.resize(slice.parts.size());
  for (size_t p = 0; p < slice.parts.size(); ++p) {
    const ScanPart& part = slice.parts[p];
    if (!IsRead(part)) continue;
    cut.blocks[p] = WantedBlocks(part.blocks);
    const uint64_t block_memory = BlockMemory(slice, part);
    const uint64_t base_bytes = PieceOf(slice, part, 0).count * DTypeSize(part.base.dtype);
    const uint64_t step = std::max<uint64_t>(
        1, std::min(kTargetUnitBytes / base_bytes, left / workers / block_memory));
    for (uint64_t begin = 0; begin < cut.blocks[p].size(); begin += step) {
      const uint64_t end = std::min<uint64_t>(begin + step, cut.blocks[p].size());
      cut.units.push_back({p, begin, end});
      cut.buffer_bytes = std::max(cut.buffer_bytes, (end - begin) * block_memory);
    }
  }
  return cut;
}

uint64_t ScanExpertBytes(const ScanSlice& slice, const ScanPart& part) {
  uint64_t element_size = 0;
  for (const SourceTensor& expert : part.experts) {
    if (expert.present) element_size += DTypeSize(expert.dtype);
  }
  uint64_t elements = 0;
  part.blocks.ForEachRun([&](BlockIndex begin, BlockIndex end) {
    for (BlockIndex block = begin; block < end; ++block) {
      elements += PieceOf(slice, part, block.value).count;
    }
  });
  return elements * element_size;
}

}  // namespace mergepipe
