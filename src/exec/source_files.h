#pragma once

#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <mutex>
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

/// The inputs of a rank. They are opened when first needed, checked to be what rank 0 saw, and
/// closed again when many others were needed since. Base reads are counted; expert reads pass the
/// gate of the rank's budget share. Thread-safe.
class SourceFiles {
 public:
  /// Keeps a file open while it is used.
  using Handle = std::shared_ptr<ReadableFile>;

  /// The lists of files must outlive this.
  SourceFiles(FileSystem& files, const std::vector<SourceFile>& base,
              const std::vector<std::vector<SourceFile>>& experts, const ExpertShares& shares);

  /// An input whose size or time is not what rank 0 saw is kBadInput.
  Result<Handle> Base(uint32_t file);
  /// The base, for bytes that go from file to file: counted where this process has to read them.
  Result<Handle> BaseForCopying(uint32_t file);
  /// Charged to the merge share.
  Result<Handle> Expert(size_t expert, uint32_t file);
  /// For comparing integer tensors; charged to the compare share.
  Result<Handle> ExpertForComparing(size_t expert, uint32_t file);
  /// What a sparse output has made.
  Result<Handle> Made(const SourceFile& file);

  uint64_t base_bytes_read() const { return base_bytes_.load(); }
  uint64_t expert_bytes_read() const { return merge_share_.spent().count(); }
  uint64_t made_bytes_read() const { return made_bytes_.load(); }
  uint64_t compare_bytes_read() const { return compare_share_.spent().count(); }

 private:
  enum class Use { kBase, kCopy, kMerge, kCompare, kMade };
  struct Key {
    Use use;
    size_t expert;
    uint32_t file;
    auto operator<=>(const Key&) const = default;
  };
  struct Open {
    Key key;
    Handle file;
  };

  Result<Handle> Get(const Key& key, const SourceFile& source);
  std::unique_ptr<ReadableFile> Watched(const Key& key, const SourceFile& source,
                                        std::unique_ptr<ReadableFile> file);

  FileSystem& files_;
  const std::vector<SourceFile>& base_list_;
  const std::vector<std::vector<SourceFile>>& expert_lists_;
  std::atomic<uint64_t> base_bytes_{0};
  std::atomic<uint64_t> made_bytes_{0};
  BudgetShare merge_share_;
  BudgetShare compare_share_;
  std::mutex mutex_;
  std::list<Open> open_;  // the last used first
  std::map<Key, std::list<Open>::iterator> by_key_;
};

}  // namespace mergepipe
