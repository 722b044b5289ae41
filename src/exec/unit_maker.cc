#include "exec/unit_maker.h"

#include <algorithm>
#include <cstring>

#include "exec/direct_place.h"
#include "mergepipe/kernels/nonfinite.h"
#include "mergepipe/kernels/output.h"

namespace mergepipe {
namespace {

NonFiniteCount ToReport(const NonFinite& count) { return {count.nan, count.inf}; }

// Base and merged delta to the output's type, a tile at a time.
class BlockWriter final : public TileSink {
 public:
  BlockWriter(const StoredElements& base, DType out_dtype, std::span<std::byte> out)
      : base_(base), out_dtype_(out_dtype), out_(out) {}

  void Take(uint64_t begin, std::span<const float> merged) override {
    const size_t size = DTypeSize(out_dtype_);
    made_ += WriteMerged(Part(base_, begin, merged.size()), merged, out_dtype_,
                         out_.subspan(begin * size, merged.size() * size));
  }

  NonFiniteCount made() const { return ToReport(made_); }

 private:
  StoredElements base_;
  DType out_dtype_;
  std::span<std::byte> out_;
  NonFinite made_;
};

// Where the blocks of a unit go: those that follow each other in an output file are written
// together, from their offset modulo 4 KiB.
class OutputPlan {
 public:
  OutputPlan(const Slice& slice, const WorkUnit& unit) : places_(unit.blocks(), kNone) {
    for (const UnitPiece& piece : unit.pieces) {
      const TensorPart& part = slice.parts[piece.part];
      const BlockGeometry geometry{slice.block_size, part.elements};
      const uint64_t size = DTypeSize(part.out_dtype);
      if (OnlyCompares(slice, part)) continue;
      for (size_t i = 0; i < piece.blocks.size(); ++i) {
        const uint64_t block = piece.blocks[i];
        const uint64_t offset = part.out_offset + piece.positions[i] * slice.block_size * size;
        const uint64_t length = geometry.Elements(block) * size;
        if (IsCopied(slice, part, block)) {
          const uint64_t from = part.base.offset + geometry.FirstElement(block) * size;
          AddCopy({part.out_file, offset, part.base.file, from, length});
        } else {
          places_[piece.first_block + i] = AddWrite(part.out_file, offset, length);
        }
      }
    }
  }

  uint64_t size() const { return end_; }
  std::vector<CopyRun> TakeCopies() { return std::move(copies_); }

  std::vector<OutputRun> Writes(std::byte* buffer) const {
    std::vector<OutputRun> writes;
    for (const Write& write : writes_)
      writes.push_back({write.file, write.offset, {buffer + write.place, write.length}});
    return writes;
  }

  std::vector<std::byte*> Places(std::byte* buffer) const {
    std::vector<std::byte*> places(places_.size());
    for (size_t i = 0; i < places.size(); ++i)
      places[i] = places_[i] == kNone ? nullptr : buffer + places_[i];
    return places;
  }

 private:
  static constexpr uint64_t kNone = UINT64_MAX;
  struct Write {
    uint32_t file;
    uint64_t offset;
    uint64_t length;
    uint64_t place;
  };

  uint64_t AddWrite(uint32_t file, uint64_t offset, uint64_t length) {
    if (writes_.empty() || writes_.back().file != file ||
        writes_.back().offset + writes_.back().length != offset) {
      end_ = DirectPlace(offset, end_);
      writes_.push_back({file, offset, 0, end_});
    }
    const uint64_t place = end_;
    writes_.back().length += length;
    end_ += length;
    return place;
  }

  void AddCopy(const CopyRun& run) {
    if (!copies_.empty()) {
      CopyRun& last = copies_.back();
      const bool follows = last.file == run.file && last.offset + last.length == run.offset &&
                           last.base_file == run.base_file &&
                           last.base_offset + last.length == run.base_offset;
      if (follows) {
        last.length += run.length;
        return;
      }
    }
    copies_.push_back(run);
  }

  std::vector<uint64_t> places_;
  std::vector<Write> writes_;
  std::vector<CopyRun> copies_;
  uint64_t end_ = 0;
};

}  // namespace

uint64_t UnitMaker::OutMemory(const UnitBytes& bytes) {
  return bytes.out + bytes.out_runs * kDirectAlignment;
}

void UnitMaker::StartReport(const Slice& slice, const TensorPart& part, PartReport& report) {
  const bool full = slice.form == OutputForm::kFull;
  const uint64_t blocks = full ? part.end - part.begin : part.touched.Count();
  report.tensor = part.tensor;
  report.begin = part.begin;
  report.block_hashes.resize(blocks);
  report.base_hashes.resize(blocks);
  report.inputs.resize(part.experts.size() + 1);
  report.differs.resize(part.experts.size());
  report.read_hashes.assign(part.experts.size(),
                            std::vector<Hash128>(part.merge ? part.end - part.begin : 0));
}

void UnitMaker::FinishReport(const TensorPart& part, PartReport& report) {
  for (size_t k = 0; k < report.read_hashes.size(); ++k) {
    std::vector<Hash128> kept;
    for (uint64_t i = 0; i < report.read_hashes[k].size(); ++i) {
      if (part.selected[k].Contains(BlockIndex(part.begin + i)))
        kept.push_back(report.read_hashes[k][i]);
    }
    report.read_hashes[k] = std::move(kept);
  }
}

MadeUnit UnitMaker::Make(const WorkUnit& unit, const UnitData& data,
                         std::span<const TensorMerge* const> tensors, AlignedBuffer& out) {
  OutputPlan plan(slice_, unit);
  out.Reserve(plan.size());
  const std::vector<std::byte*> places = plan.Places(out.data());
  MadeUnit made;
  for (size_t p = 0; p < unit.pieces.size(); ++p) {
    const UnitPiece& piece = unit.pieces[p];
    const TensorPart& part = slice_.parts[piece.part];
    made.counts.push_back(
        MakePiece(piece, data, tensors[p],
                  std::span(places).subspan(piece.first_block, piece.blocks.size())));
    for (size_t i = 0; i < piece.blocks.size(); ++i) {
      const bool base_bytes = places[piece.first_block + i] != nullptr &&
                              part.out_dtype == part.base.dtype &&
                              !part.touched.Contains(BlockIndex(piece.blocks[i]));
      if (!base_bytes) continue;
      const BlockGeometry geometry{slice_.block_size, part.elements};
      made.unchanged_bytes += geometry.Elements(piece.blocks[i]) * DTypeSize(part.out_dtype);
    }
  }
  made.writes = plan.Writes(out.data());
  made.copies = plan.TakeCopies();
  return made;
}

PieceCounts UnitMaker::MakePiece(const UnitPiece& piece, const UnitData& data,
                                 const TensorMerge* tensor, std::span<std::byte* const> places) {
  const TensorPart& part = slice_.parts[piece.part];
  PartReport& report = reports_[piece.part];
  Counts counts{std::vector<NonFiniteCount>(report.inputs.size()),
                {},
                std::vector<uint8_t>(report.differs.size())};
  for (size_t i = 0; i < piece.blocks.size(); ++i) {
    const uint64_t block = piece.blocks[i];
    if (IsCopied(slice_, part, block)) {
      const Hash128 known = part.known_base_hashes[block - part.begin];
      report.base_hashes[piece.positions[i]] = report.block_hashes[piece.positions[i]] = known;
      continue;
    }
    if (part.compare) Compare(piece, i, data, counts);
    if (OnlyCompares(slice_, part)) continue;
    const BlockGeometry geometry{slice_.block_size, part.elements};
    MakeBlock(piece, i, data, tensor, BytesAt(places[i], geometry, block, part.out_dtype), counts);
  }
  Add(counts, report);
  return counts;
}

void UnitMaker::ReportPiece(const UnitPiece& piece, const PieceCounts& counts,
                            std::vector<PartReport>& runs) const {
  const TensorPart& part = slice_.parts[piece.part];
  if (OnlyCompares(slice_, part)) return;
  const PartReport& report = reports_[piece.part];
  for (size_t i = 0; i < piece.blocks.size(); ++i) {
    const uint64_t block = piece.blocks[i];
    if (i == 0 || block != piece.blocks[i - 1] + 1) {
      PartReport& run = runs.emplace_back();
      run.tensor = part.tensor;
      run.begin = block;
      run.inputs.resize(report.inputs.size());
      run.differs.resize(report.differs.size());
      run.read_hashes.resize(report.read_hashes.size());
      if (i == 0) {
        run.inputs = counts.inputs;
        run.made = counts.made;
        run.differs = counts.differs;
      }
    }
    PartReport& run = runs.back();
    run.block_hashes.push_back(report.block_hashes[piece.positions[i]]);
    run.base_hashes.push_back(report.base_hashes[piece.positions[i]]);
    for (size_t k = 0; k < part.selected.size(); ++k) {
      if (part.selected[k].Contains(BlockIndex(block)))
        run.read_hashes[k].push_back(report.read_hashes[k][block - part.begin]);
    }
  }
}

void UnitMaker::MakeBlock(const UnitPiece& piece, size_t i, const UnitData& data,
                          const TensorMerge* tensor, std::span<std::byte> out, Counts& counts) {
  const TensorPart& part = slice_.parts[piece.part];
  const BlockGeometry geometry{slice_.block_size, part.elements};
  const uint64_t block = piece.blocks[i];
  const size_t at = piece.first_block + i;
  const auto stored = BytesAt(data.base[at], geometry, block, part.base.dtype);
  const bool touched = part.touched.Contains(BlockIndex(block));
  const bool taken_over = touched && part.sparse.present;  // the sparse output's record counted it
  if (IsFloat(part.base.dtype) && !taken_over)
    counts.inputs[0] += ToReport(CountNonFinite(part.base.dtype, stored));
  const bool changes = touched || part.out_dtype != part.base.dtype;
  if (taken_over) {
    std::memcpy(out.data(), data.made[at], out.size());
  } else if (touched) {
    counts.made += Merge(piece, i, data, *tensor, out, counts);
  } else if (changes) {
    counts.made += ToReport(ConvertStored(part.base.dtype, stored, part.out_dtype, out));
  } else {
    std::memcpy(out.data(), stored.data(), out.size());
  }
  PartReport& report = reports_[piece.part];
  const Hash128 base_hash = HashBytes(stored);
  report.base_hashes[piece.positions[i]] = base_hash;
  report.block_hashes[piece.positions[i]] = changes ? HashBytes(out) : base_hash;
}

NonFiniteCount UnitMaker::Merge(const UnitPiece& piece, size_t i, const UnitData& data,
                                const TensorMerge& tensor, std::span<std::byte> out,
                                Counts& counts) {
  const TensorPart& part = slice_.parts[piece.part];
  const BlockDeltas deltas = DeltasOf(slice_, piece, i, data);
  for (size_t slot = 0; slot < deltas.experts().size(); ++slot) {
    const uint32_t expert = deltas.experts()[slot].value;
    const StoredElements stored = deltas.stored(slot);
    counts.inputs[1 + expert] += ToReport(CountNonFinite(stored.dtype, stored.bytes));
    reports_[piece.part].read_hashes[expert][piece.blocks[i] - part.begin] =
        HashBytes(stored.bytes);
  }
  BlockWriter writer(deltas.base(), part.out_dtype, out);
  tensor.Apply(deltas, writer);
  return writer.made();
}

void UnitMaker::Compare(const UnitPiece& piece, size_t i, const UnitData& data,
                        Counts& counts) const {
  const TensorPart& part = slice_.parts[piece.part];
  const BlockGeometry geometry{slice_.block_size, part.elements};
  const size_t at = piece.first_block + i;
  const auto base = BytesAt(data.base[at], geometry, piece.blocks[i], part.base.dtype);
  for (size_t k = 0; k < part.experts.size(); ++k) {
    const std::byte* expert = data.experts[k][at];
    if (expert != nullptr && std::memcmp(expert, base.data(), base.size()) != 0)
      counts.differs[k] = 1;
  }
}

void UnitMaker::Add(const Counts& counts, PartReport& report) {
  const std::lock_guard lock(mutex_);
  for (size_t input = 0; input < counts.inputs.size(); ++input)
    report.inputs[input] += counts.inputs[input];
  for (size_t k = 0; k < counts.differs.size(); ++k) report.differs[k] |= counts.differs[k];
  report.made += counts.made;
}

}  // namespace mergepipe
