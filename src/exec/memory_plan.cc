#include "exec/memory_plan.h"

#include <algorithm>

#include "exec/expert_window.h"
#include "mergepipe/base/checked.h"

namespace mergepipe {
namespace {

// What the process takes besides the buffers: code, MPI, headers and reports.
constexpr uint64_t kBaselineMemory = 128 * kMiB;
// One histogram of a tensor's magnitudes, for one expert and thread.
constexpr uint64_t kStatisticsMemory = kMiB / 2;
constexpr uint64_t kTargetChunkBytes = 16 * kMiB;

uint64_t SelectedTotal(const TensorPart& part) {
  uint64_t elements = 0;
  for (const uint64_t selected : part.selected_elements) elements += selected;
  return elements;
}

}  // namespace

MemoryPlan::MemoryPlan(const Slice& slice, const Strategy& strategy, const ExecLimits& limits)
    : slice_(slice),
      rounds_(strategy.ObservationRounds()),
      limits_(limits),
      fixed_memory_(FixedMemory()),
      groups_(static_cast<uint64_t>(limits.threads)) {
  // Statistics take at most a quarter of what is left; fewer groups observe with fewer threads, to
  // the same result.
  const uint64_t left =
      limits_.memory_bytes > fixed_memory_ ? limits_.memory_bytes - fixed_memory_ : 0;
  while (groups_ > 1 && StatisticsOf(groups_) > left / 4) --groups_;
}

bool MemoryPlan::Observes(const TensorPart& part) const {
  return part.merge && rounds_ > 0 && SelectedTotal(part) > 0;
}

uint64_t MemoryPlan::HeldBytes() const {
  uint64_t held = 0;
  for (const TensorPart& part : slice_.parts) {
    const BlockGeometry geometry{slice_.block_size, part.elements};
    if (Holds(part))
      held = std::max(held, ExpertWindow::SizeOf(part, geometry, part.begin, part.end));
  }
  return held;
}

// Hashes of every block that is made or read, and those that are known of it.
uint64_t MemoryPlan::HashMemory() const {
  uint64_t hashes = 0;
  for (const TensorPart& part : slice_.parts) {
    const uint64_t inputs = part.merge ? part.experts.size() : 0;
    hashes += (part.end - part.begin) * (2 + inputs) + part.known_base_hashes.size();
    for (const auto& known : part.known_hashes) hashes += known.size();
  }
  return hashes * sizeof(Hash128);
}

uint64_t MemoryPlan::StatisticsOf(uint64_t groups) const {
  if (rounds_ == 0) return 0;
  return (groups + 2) * slice_.expert_files.size() *
         kStatisticsMemory;  // and the sums of chunk and tensor
}

uint64_t MemoryPlan::FixedMemory() const {
  const uint64_t merged =
      static_cast<uint64_t>(limits_.threads) * slice_.block_size * sizeof(float);
  return kBaselineMemory + merged + HeldBytes() + HashMemory();
}

uint64_t MemoryPlan::BlockMemory(const TensorPart& part) const {
  const uint64_t elements = std::min(part.elements, slice_.block_size);
  uint64_t bytes = DTypeSize(part.base.dtype) + DTypeSize(part.out_dtype);
  for (const SourceTensor& expert : part.experts) {
    if (expert.present && !Holds(part)) bytes += DTypeSize(expert.dtype);
  }
  return elements * bytes;
}

uint64_t MemoryPlan::ChunkBlocks(const TensorPart& part) const {
  const uint64_t base_block = std::max<uint64_t>(1, slice_.block_size * DTypeSize(part.base.dtype));
  const uint64_t wanted = std::max(CeilDivide(kTargetChunkBytes, base_block),
                                   2 * static_cast<uint64_t>(limits_.threads));
  const uint64_t fixed = fixed_memory_ + StatisticsOf(groups_);
  const uint64_t left = limits_.memory_bytes > fixed ? limits_.memory_bytes - fixed : 0;
  return std::clamp<uint64_t>(left / std::max<uint64_t>(1, BlockMemory(part)), 1, wanted);
}

Status MemoryPlan::Check() const {
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

}  // namespace mergepipe
