#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "mergepipe/exec/scan.h"
#include "mergepipe/exec/slice.h"
#include "mergepipe/io/budget_gate.h"

namespace mergepipe {

/// What a rank may read of the experts.
struct ExpertShares {
  Bytes merge;    ///< or take statistics of
  Bytes compare;  ///< for integer tensors
};

/// The inputs of a rank, opened when first needed and kept open. Base reads are counted; expert
/// reads pass the gate of the rank's budget share. Thread-safe after OpenFor.
class SourceFiles {
 public:
  /// The lists of files must outlive this.
  SourceFiles(FileSystem& files, const std::vector<SourceFile>& base,
              const std::vector<std::vector<SourceFile>>& experts, const ExpertShares& shares);

  /// Opens what `part` reads. An input whose size or time is not what rank 0 saw is kBadInput.
  Status OpenFor(const TensorPart& part);
  Status OpenFor(const ScanPart& part);

  ReadableFile& Base(uint32_t file) { return *base_[file]; }
  /// Charged to the merge share.
  ReadableFile& Expert(size_t expert, uint32_t file) { return *merge_[expert][file]; }
  /// For comparing integer tensors; charged to the compare share.
  ReadableFile& ExpertForComparing(size_t expert, uint32_t file) { return *compare_[expert][file]; }

  uint64_t base_bytes_read() const { return base_bytes_.load(); }
  uint64_t expert_bytes_read() const { return merge_share_.spent().count(); }
  uint64_t compare_bytes_read() const { return compare_share_.spent().count(); }

 private:
  using Files = std::vector<std::unique_ptr<ReadableFile>>;
  Result<std::unique_ptr<ReadableFile>> Open(const SourceFile& source);
  Status OpenBase(uint32_t file);
  Status OpenExpert(size_t expert, uint32_t file, std::vector<Files>& open, BudgetShare& share);

  FileSystem& files_;
  const std::vector<SourceFile>& base_list_;
  const std::vector<std::vector<SourceFile>>& expert_lists_;
  std::atomic<uint64_t> base_bytes_{0};
  BudgetShare merge_share_;
  BudgetShare compare_share_;
  Files base_;
  std::vector<Files> merge_;
  std::vector<Files> compare_;
};

}  // namespace mergepipe
