#pragma once

#include <atomic>
#include <memory>

#include "mergepipe/base/units.h"
#include "mergepipe/io/file.h"

/// \file
/// Where the budget is physical: the bytes of expert weights pass through here and nowhere else.
namespace mergepipe {

/// A share of the budget, and what has been spent of it. Thread-safe.
class BudgetShare {
 public:
  explicit BudgetShare(Bytes limit) : limit_(limit) {}

  /// Reserves `amount` before it is read. kInternal if it does not fit: the plan promised that it
  /// would, so a read over the share is a defect, never an overrun.
  Status Spend(Bytes amount, const std::string& subject);

  Bytes limit() const { return limit_; }
  Bytes spent() const { return Bytes(spent_.load(std::memory_order_relaxed)); }

 private:
  Bytes limit_;
  std::atomic<uint64_t> spent_{0};
};

/// `file`, with every read charged to `share` (which must outlive it). Bytes before `free_until`
/// (the header) are free.
std::unique_ptr<ReadableFile> GateReads(std::unique_ptr<ReadableFile> file, BudgetShare& share,
                                        uint64_t free_until);

/// `files`, with every byte that is read through it charged to `share`. Both must outlive it. For
/// reading only: all else is refused.
std::unique_ptr<FileSystem> GateAllReads(FileSystem& files, BudgetShare& share);

/// `file`, with the bytes read added to `counter` (which must outlive it).
std::unique_ptr<ReadableFile> CountReads(std::unique_ptr<ReadableFile> file,
                                         std::atomic<uint64_t>& counter);

/// The same for a file that may be copied from: what the kernel copies by itself is not read.
std::unique_ptr<ReadableFile> CountReadsButCopies(std::unique_ptr<ReadableFile> file,
                                                  std::atomic<uint64_t>& counter);

}  // namespace mergepipe
