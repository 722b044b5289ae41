#include "exec/work_units.h"

#include <algorithm>

#include "exec/block_geometry.h"

namespace mergepipe {
namespace {

BlockGeometry GeometryOf(const Slice& slice, const TensorPart& part) {
  return {slice.block_size, part.elements};
}

enum class Wave { kEvenShared, kOddShared, kRest };

class Cutter {
 public:
  Cutter(const Slice& slice, const Strategy& strategy, uint64_t target_bytes)
      : slice_(slice), strategy_(strategy), target_(target_bytes) {}

  WorkUnits Cut() {
    for (const Wave wave : {Wave::kEvenShared, Wave::kOddShared, Wave::kRest}) {
      for (size_t p = 0; p < slice_.parts.size(); ++p) {
        if (WaveOf(slice_.parts[p]) == wave) AddPart(p);
      }
      Close();
    }
    return std::move(cut_);
  }

 private:
  bool IsSharedJob(const TensorPart& part) const {
    return part.shared() && NeedsObserving(part, strategy_);
  }

  Wave WaveOf(const TensorPart& part) const {
    if (!IsSharedJob(part)) return Wave::kRest;
    return part.shared_ordinal % 2 == 0 ? Wave::kEvenShared : Wave::kOddShared;
  }

  uint64_t BlockBytes(const TensorPart& part, uint64_t block) const {
    return GeometryOf(slice_, part).Elements(block) * DTypeSize(part.base.dtype);
  }

  uint64_t PartBytes(const TensorPart& part) const {
    return GeometryOf(slice_, part).ElementsBetween(part.begin, part.end) *
           DTypeSize(part.base.dtype);
  }

  void AddPart(size_t p) {
    const TensorPart& part = slice_.parts[p];
    const bool observed = NeedsObserving(part, strategy_);
    if (IsSharedJob(part) || (observed && (PartBytes(part) > target_ || part.reads > 1))) {
      AddJob(p);
    } else if (PartBytes(part) > target_) {
      Close();
      AddBlocks(p, Which::kAll);
      Close();
    } else {
      if (open_bytes_ + PartBytes(part) > target_) Close();
      AddBlocks(p, Which::kAll);
    }
  }

  void AddJob(size_t p) {
    Close();
    job_ = cut_.jobs.size();
    cut_.jobs.push_back({p, cut_.units.size(), 0, false, false});
    AddBlocks(p, Which::kTouched);
    Close();
    cut_.jobs.back().end = cut_.units.size();
    job_.reset();
    AddBlocks(p, Which::kUntouched);
    Close();
  }

  // Blocks that are written, or compared.
  enum class Which { kAll, kTouched, kUntouched };

  void AddBlocks(size_t p, Which which) {
    const TensorPart& part = slice_.parts[p];
    const bool full = slice_.form == OutputForm::kFull;
    uint64_t written = 0;
    bool started = false;
    for (uint64_t block = part.begin; block < part.end; ++block) {
      const bool touched = part.touched.Contains(BlockIndex(block));
      const uint64_t position = written;
      if (full || touched) ++written;
      if (!full && !touched && !part.compare) continue;
      if (which != Which::kAll && touched != (which == Which::kTouched)) continue;
      const uint64_t bytes = BlockBytes(part, block);
      if (open_bytes_ > 0 && open_bytes_ + bytes > target_) {
        Close();
        started = false;
      }
      if (!started) {
        open_.pieces.push_back({p, {}, {}, open_.blocks()});
        started = true;
      }
      open_.pieces.back().blocks.push_back(block);
      open_.pieces.back().positions.push_back(position);
      open_bytes_ += bytes;
    }
  }

  void Close() {
    if (open_.pieces.empty()) return;
    open_.job = job_;
    cut_.units.push_back(std::move(open_));
    open_ = {};
    open_bytes_ = 0;
  }

  const Slice& slice_;
  const Strategy& strategy_;
  uint64_t target_;
  WorkUnits cut_;
  WorkUnit open_;
  uint64_t open_bytes_ = 0;
  std::optional<size_t> job_;
};

}  // namespace

bool NeedsObserving(const TensorPart& part, const Strategy& strategy) {
  const bool any =
      std::ranges::any_of(part.selected_elements, [](uint64_t selected) { return selected > 0; });
  return part.merge && strategy.ObservationRounds() > 0 && any && part.conclusion.empty();
}

bool IsCopied(const Slice& slice, const TensorPart& part, uint64_t block) {
  // Where NaN is allowed it is counted, so all blocks are looked at.
  return slice.copies_known_blocks && slice.form == OutputForm::kFull && !slice.allow_nonfinite &&
         !part.known_base_hashes.empty() &&
         part.known_base_hashes[block - part.begin] != Hash128() &&
         part.out_dtype == part.base.dtype && !part.compare &&
         !part.touched.Contains(BlockIndex(block));
}

bool OnlyCompares(const Slice& slice, const TensorPart& part) {
  return slice.form == OutputForm::kSparse && part.compare;
}

WorkUnits CutIntoUnits(const Slice& slice, const Strategy& strategy, uint64_t target_bytes) {
  return Cutter(slice, strategy, target_bytes).Cut();
}

namespace {

// Adds up the blocks of a piece that are of one kind: a run ends where a block is left out.
class RunCounter {
 public:
  RunCounter(uint64_t& bytes, uint64_t& runs) : bytes_(bytes), runs_(runs) {}

  void Add(uint64_t block, uint64_t bytes) {
    if (block != next_) ++runs_;
    next_ = block + 1;
    bytes_ += bytes;
  }

 private:
  uint64_t& bytes_;
  uint64_t& runs_;
  uint64_t next_ = UINT64_MAX;
};

class UnitCounter {
 public:
  explicit UnitCounter(const Slice& slice) : slice_(slice) {}

  void Add(const UnitPiece& piece) {
    const TensorPart& part = slice_.parts[piece.part];
    const BlockGeometry geometry = GeometryOf(slice_, part);
    RunCounter base(bytes_.base, bytes_.base_runs);
    RunCounter out(bytes_.out, bytes_.out_runs);
    RunCounter made(bytes_.experts, bytes_.expert_runs);
    std::vector<RunCounter> experts(part.experts.size(),
                                    RunCounter(bytes_.experts, bytes_.expert_runs));
    for (size_t i = 0; i < piece.blocks.size(); ++i) {
      const uint64_t block = piece.blocks[i];
      const uint64_t elements = geometry.Elements(block);
      if (IsCopied(slice_, part, block)) {
        bytes_.copied += elements * DTypeSize(part.base.dtype);
        continue;
      }
      base.Add(block, elements * DTypeSize(part.base.dtype));
      if (!OnlyCompares(slice_, part))
        out.Add(piece.positions[i], elements * DTypeSize(part.out_dtype));
      if (part.sparse.present && part.touched.Contains(BlockIndex(block)))
        made.Add(piece.positions[i], elements * DTypeSize(part.sparse.dtype));
      for (size_t k = 0; k < part.experts.size(); ++k) {
        const SourceTensor& expert = part.experts[k];
        const bool read =
            part.compare ? expert.present : part.selected[k].Contains(BlockIndex(block));
        if (!read) continue;
        const uint64_t bytes = elements * DTypeSize(expert.dtype);
        experts[k].Add(block, bytes);
        (part.compare ? bytes_.compared : bytes_.merged) += bytes;
      }
    }
  }

  const UnitBytes& bytes() const { return bytes_; }

 private:
  const Slice& slice_;
  UnitBytes bytes_;
};

}  // namespace

UnitBytes BytesOf(const Slice& slice, const WorkUnit& unit) {
  UnitCounter counter(slice);
  for (const UnitPiece& piece : unit.pieces) counter.Add(piece);
  return counter.bytes();
}

}  // namespace mergepipe
