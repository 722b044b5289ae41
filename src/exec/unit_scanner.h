#pragma once

#include <mutex>
#include <semaphore>
#include <span>
#include <vector>

#include "exec/scan_units.h"
#include "exec/source_files.h"

namespace mergepipe {

/// Reads units of a slice and takes their statistics. Thread-safe: units may be scanned at the same
/// time, each with a buffer of its own.
class UnitScanner {
 public:
  /// `reports` gets one report for each part, with a place for every wanted block.
  UnitScanner(const ScanSlice& slice, const ScanUnits& cut, SourceFiles& sources,
              std::vector<ScanPartReport>& reports);

  /// Room in a buffer beyond the units' buffer_bytes: reads begin at their offset modulo 4 KiB.
  static constexpr size_t kSlack = 3 * kDirectAlignment;
  /// `buffer` has the units' buffer_bytes and kSlack, and begins at a multiple of 4 KiB.
  Status Scan(const ScanUnit& unit, std::span<std::byte> buffer);

  /// kBadInput with every tensor in which NaN or infinity was met, unless the slice allows them.
  Status CheckFinite() const;

 private:
  void TakeBase(const ScanUnit& unit, std::span<const ScanPiece> pieces,
                std::span<const std::byte> base);
  void TakeExpert(const ScanUnit& unit, size_t expert, std::span<const ScanPiece> pieces,
                  std::span<const std::byte> base, std::span<const std::byte> stored);
  void CountInput(const ScanUnit& unit, size_t input, DType dtype,
                  std::span<const std::byte> stored);

  const ScanSlice& slice_;
  const ScanUnits& cut_;
  SourceFiles& sources_;
  std::vector<ScanPartReport>& reports_;
  std::counting_semaphore<> computing_;  // free for those who may
  std::mutex mutex_;
  std::vector<std::vector<NonFiniteCount>> nonfinite_;  ///< by part and input; guarded by mutex_
};

}  // namespace mergepipe
