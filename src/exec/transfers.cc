#include "exec/transfers.h"

#include <algorithm>

#include "mergepipe/base/units.h"
#include "mergepipe/kernels/parallel.h"

namespace mergepipe {
namespace {

// Large enough for every disk and network filesystem, small enough that threads share the work.
constexpr uint64_t kMaxPiece = 16 * kMiB;

template <typename Run>
std::vector<Run> CutIntoPieces(const std::vector<Run>& runs) {
  std::vector<Run> pieces;
  for (Run run : runs) {
    while (!run.bytes.empty()) {
      const size_t size = std::min<size_t>(run.bytes.size(), kMaxPiece);
      pieces.push_back({run.file, run.offset, run.bytes.first(size)});
      run.offset += size;
      run.bytes = run.bytes.subspan(size);
    }
  }
  return pieces;
}

}  // namespace

Status ReadAll(const std::vector<FileRead>& runs, int threads) {
  const auto pieces = CutIntoPieces(runs);
  return ParallelFor(pieces.size(), threads, [&](uint64_t i) {
    return pieces[i].file->ReadAt(pieces[i].offset, pieces[i].bytes);
  });
}

Status WriteAll(const std::vector<FileWrite>& runs, int threads) {
  const auto pieces = CutIntoPieces(runs);
  return ParallelFor(pieces.size(), threads, [&](uint64_t i) {
    return pieces[i].file->WriteAt(pieces[i].offset, pieces[i].bytes);
  });
}

}  // namespace mergepipe
