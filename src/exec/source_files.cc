#include "exec/source_files.h"

#include "exec/unchanged_file.h"

namespace mergepipe {
namespace {

// Far below the usual limit of open files, and above what is in use at a time.
constexpr size_t kMostOpen = 512;

}  // namespace

SourceFiles::SourceFiles(FileSystem& files, const std::vector<SourceFile>& base,
                         const std::vector<std::vector<SourceFile>>& experts,
                         const ExpertShares& shares)
    : files_(files),
      base_list_(base),
      expert_lists_(experts),
      merge_share_(shares.merge),
      compare_share_(shares.compare) {}

std::unique_ptr<ReadableFile> SourceFiles::Watched(const Key& key, const SourceFile& source,
                                                   std::unique_ptr<ReadableFile> file) {
  switch (key.use) {
    case Use::kBase: return CountReads(std::move(file), base_bytes_);
    case Use::kMerge: return GateReads(std::move(file), merge_share_, source.data_begin);
    case Use::kCompare: return GateReads(std::move(file), compare_share_, source.data_begin);
    case Use::kCopy: return CountReadsButCopies(std::move(file), base_bytes_);
    case Use::kMade: return CountReads(std::move(file), made_bytes_);
  }
  return nullptr;
}

Result<SourceFiles::Handle> SourceFiles::Get(const Key& key, const SourceFile& source) {
  const std::lock_guard lock(mutex_);
  if (const auto known = by_key_.find(key); known != by_key_.end()) {
    open_.splice(open_.begin(), open_, known->second);
    return known->second->file;
  }
  MERGEPIPE_ASSIGN_OR_RETURN(auto opened, OpenUnchanged(files_, source));
  Handle file = Watched(key, source, std::move(opened));
  open_.push_front({key, file});
  by_key_[key] = open_.begin();
  if (open_.size() > kMostOpen) {
    by_key_.erase(open_.back().key);
    open_.pop_back();
  }
  return file;
}

Result<SourceFiles::Handle> SourceFiles::Base(uint32_t file) {
  return Get({Use::kBase, 0, file}, base_list_[file]);
}

Result<SourceFiles::Handle> SourceFiles::BaseForCopying(uint32_t file) {
  return Get({Use::kCopy, 0, file}, base_list_[file]);
}

Result<SourceFiles::Handle> SourceFiles::Expert(size_t expert, uint32_t file) {
  return Get({Use::kMerge, expert, file}, expert_lists_[expert][file]);
}

Result<SourceFiles::Handle> SourceFiles::ExpertForComparing(size_t expert, uint32_t file) {
  return Get({Use::kCompare, expert, file}, expert_lists_[expert][file]);
}

Result<SourceFiles::Handle> SourceFiles::Made(const SourceFile& file) {
  return Get({Use::kMade, 0, 0}, file);
}

}  // namespace mergepipe
