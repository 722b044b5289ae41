#include "exec/unit_scanner.h"

#include <algorithm>
#include <limits>

#include "exec/direct_place.h"
#include "exec/nonfinite_check.h"
#include "exec/transfers.h"
#include "mergepipe/kernels/nonfinite.h"
#include "mergepipe/kernels/statistics.h"

namespace mergepipe {
namespace {

static_assert(kSketchSize == kStatisticsLanes);

// The pieces of a tensor one after the other; those that touch in the file are read together.
Status ReadPieces(ReadableFile& file, const SourceTensor& tensor, std::span<const ScanPiece> pieces,
                  std::span<std::byte> out) {
  const uint64_t width = DTypeSize(tensor.dtype);
  std::vector<FileRead> runs;
  while (!pieces.empty()) {
    const uint64_t first = pieces.front().first;
    uint64_t count = 0;
    while (!pieces.empty() && pieces.front().first == first + count) {
      count += pieces.front().count;
      pieces = pieces.subspan(1);
    }
    runs.push_back({&file, tensor.offset + first * width, out.first(count * width)});
    out = out.subspan(count * width);
  }
  return ReadAll(runs, 1);  // one of many threads that scan
}

// The right to compute, for a while.
class Computing {
 public:
  explicit Computing(std::counting_semaphore<>& free) : free_(free) { free_.acquire(); }
  ~Computing() { free_.release(); }
  Computing(const Computing&) = delete;
  Computing& operator=(const Computing&) = delete;

 private:
  std::counting_semaphore<>& free_;
};

BlockStatistics StatisticsOf(const StoredElements& expert, const StoredElements& base) {
  const DeltaSums sums = SumDeltas(expert, base);
  BlockStatistics statistics;
  statistics.sum_squares = sums.sum_squares;
  statistics.max_abs = sums.nonfinite > 0 ? std::numeric_limits<float>::infinity() : sums.max_abs;
  statistics.nonzeros = static_cast<uint32_t>(sums.nonzeros);  // at most kMaxBlockSize
  statistics.sketch = QuantizeSketch(sums.sketch);
  statistics.hash = HashBytes(expert.bytes);
  return statistics;
}

}  // namespace

UnitScanner::UnitScanner(const ScanSlice& slice, const ScanUnits& cut, SourceFiles& sources,
                         std::vector<ScanPartReport>& reports)
    : slice_(slice), cut_(cut), sources_(sources), reports_(reports), computing_(cut.computing) {
  reports_.resize(slice.parts.size());
  nonfinite_.resize(slice.parts.size());
  for (size_t p = 0; p < slice.parts.size(); ++p) {
    const ScanPart& part = slice.parts[p];
    const size_t blocks = cut.blocks[p].size();
    reports_[p].tensor = part.tensor;
    if (part.wants_base && !slice.probe) reports_[p].base.resize(blocks);
    reports_[p].experts.resize(part.experts.size());
    for (size_t k = 0; k < part.experts.size(); ++k) {
      if (part.experts[k].present) reports_[p].experts[k].resize(blocks);
    }
    nonfinite_[p].resize(part.experts.size() + 1);
  }
}

Status UnitScanner::Scan(const ScanUnit& unit, std::span<std::byte> buffer) {
  const ScanPart& part = slice_.parts[unit.part];
  std::vector<ScanPiece> pieces;
  uint64_t elements = 0;
  for (uint64_t i = unit.begin; i < unit.end; ++i) {
    pieces.push_back(PieceOf(slice_, part, cut_.blocks[unit.part][i]));
    elements += pieces.back().count;
  }
  const auto offset_in = [&](const SourceTensor& tensor) {
    return tensor.offset + pieces.front().first * DTypeSize(tensor.dtype);
  };
  const size_t base_place = DirectPlace(offset_in(part.base), 0);
  const auto base = buffer.subspan(base_place, elements * DTypeSize(part.base.dtype));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto base_file, sources_.Base(part.base.file));
  MERGEPIPE_RETURN_IF_ERROR(ReadPieces(*base_file, part.base, pieces, base));
  {
    const Computing computing(computing_);
    TakeBase(unit, pieces, base);
  }
  for (size_t k = 0; k < part.experts.size(); ++k) {
    const SourceTensor& expert = part.experts[k];
    if (!expert.present) continue;
    const auto stored = buffer.subspan(DirectPlace(offset_in(expert), base_place + base.size()),
                                       elements * DTypeSize(expert.dtype));
    MERGEPIPE_ASSIGN_OR_RETURN(const auto file, sources_.Expert(k, expert.file));
    MERGEPIPE_RETURN_IF_ERROR(ReadPieces(*file, expert, pieces, stored));
    const Computing computing(computing_);
    TakeExpert(unit, k, pieces, base, stored);
  }
  return {};
}

void UnitScanner::TakeBase(const ScanUnit& unit, std::span<const ScanPiece> pieces,
                           std::span<const std::byte> base) {
  const DType dtype = slice_.parts[unit.part].base.dtype;
  CountInput(unit, 0, dtype, base);
  auto& statistics = reports_[unit.part].base;
  if (statistics.empty()) return;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto block = base.first(pieces[i].count * DTypeSize(dtype));
    const bool finite = CountNonFinite(dtype, block) == NonFinite();
    statistics[unit.begin + i] = {SumSquares({dtype, block}),
                                  finite ? HashBytes(block) : Hash128()};
    base = base.subspan(block.size());
  }
}

void UnitScanner::TakeExpert(const ScanUnit& unit, size_t expert, std::span<const ScanPiece> pieces,
                             std::span<const std::byte> base, std::span<const std::byte> stored) {
  const DType base_dtype = slice_.parts[unit.part].base.dtype;
  const DType dtype = slice_.parts[unit.part].experts[expert].dtype;
  CountInput(unit, 1 + expert, dtype, stored);
  auto& statistics = reports_[unit.part].experts[expert];
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto base_block = base.first(pieces[i].count * DTypeSize(base_dtype));
    const auto block = stored.first(pieces[i].count * DTypeSize(dtype));
    statistics[unit.begin + i] = StatisticsOf({dtype, block}, {base_dtype, base_block});
    base = base.subspan(base_block.size());
    stored = stored.subspan(block.size());
  }
}

void UnitScanner::CountInput(const ScanUnit& unit, size_t input, DType dtype,
                             std::span<const std::byte> stored) {
  const NonFinite count = CountNonFinite(dtype, stored);
  if (count == NonFinite()) return;
  const std::lock_guard lock(mutex_);
  nonfinite_[unit.part][input] += {count.nan, count.inf};
}

Status UnitScanner::CheckFinite() const {
  ProblemList problems;
  for (size_t p = 0; p < slice_.parts.size() && !slice_.allow_nonfinite; ++p) {
    ListNonFinite(slice_.parts[p].name, nonfinite_[p], slice_.expert_ids, problems);
  }
  return problems.ToStatus(ErrorKind::kBadInput);
}

}  // namespace mergepipe
