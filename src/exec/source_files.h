#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "mergepipe/exec/slice.h"
#include "mergepipe/io/budget_gate.h"

namespace mergepipe {

/// The inputs of a slice, opened when first needed and kept open. Base reads are counted; expert
/// reads pass the gate of the rank's budget share. Thread-safe after OpenFor.
class SourceFiles {
 public:
  SourceFiles(FileSystem& files, const Slice& slice);

  /// Opens what `part` reads. An input whose size or time is not what rank 0 saw is kBadInput.
  Status OpenFor(const TensorPart& part);

  ReadableFile& Base(uint32_t file) { return *base_[file]; }
  /// For merging; charged to the slice's merge share.
  ReadableFile& Expert(size_t expert, uint32_t file) { return *merge_[expert][file]; }
  /// For comparing integer tensors; charged to the compare share.
  ReadableFile& ExpertForComparing(size_t expert, uint32_t file) { return *compare_[expert][file]; }

  uint64_t base_bytes_read() const { return base_bytes_.load(); }
  uint64_t expert_bytes_read() const { return merge_share_.spent().count(); }
  uint64_t compare_bytes_read() const { return compare_share_.spent().count(); }

 private:
  using Files = std::vector<std::unique_ptr<ReadableFile>>;
  Result<std::unique_ptr<ReadableFile>> Open(const SourceFile& source);

  FileSystem& files_;
  const Slice& slice_;
  std::atomic<uint64_t> base_bytes_{0};
  BudgetShare merge_share_;
  BudgetShare compare_share_;
  Files base_;
  std::vector<Files> merge_;
  std::vector<Files> compare_;
};

}  // namespace mergepipe
