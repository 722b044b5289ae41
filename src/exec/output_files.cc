#include "exec/output_files.h"

#include <algorithm>

namespace mergepipe {
namespace {

// A commit waits for the disk: it takes at most one part in so many of the time.
constexpr int kCommitShare = 20;
constexpr std::chrono::milliseconds kShortestInterval{50};

}  // namespace

Result<WritableFile*> OutputFiles::At(uint32_t file) {
  if (file >= paths_.size()) {  // it may come from another rank
    return Fail(ErrorKind::kInternal, "output", "has no file " + std::to_string(file),
                "check that all ranks run the same build");
  }
  const std::lock_guard lock(mutex_);
  if (open_[file].file) return open_[file].file.get();
  MERGEPIPE_ASSIGN_OR_RETURN(const bool visible, files_.Exists(paths_[file]));
  if (!visible) {
    return Fail(ErrorKind::kIo, paths_[file], "is not visible to this rank",
                "--out must be on a filesystem that all hosts share, or pass --gather root");
  }
  MERGEPIPE_ASSIGN_OR_RETURN(open_[file].file,
                             files_.OpenForWriting(paths_[file], TransferMode::kAuto));
  return open_[file].file.get();
}

void OutputFiles::MarkWritten(uint32_t file) {
  const std::lock_guard lock(mutex_);
  open_[file].written = true;
}

Status OutputFiles::Write(const OutputRun& run) {
  MERGEPIPE_ASSIGN_OR_RETURN(WritableFile * file, At(run.file));
  MERGEPIPE_RETURN_IF_ERROR(file->WriteAt(run.offset, run.bytes));
  MarkWritten(run.file);
  return {};
}

Status OutputFiles::Copy(const CopyRun& run) {
  MERGEPIPE_ASSIGN_OR_RETURN(WritableFile * file, At(run.file));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto base, sources_.BaseForCopying(run.base_file));
  MERGEPIPE_RETURN_IF_ERROR(file->CopyFrom(*base, run.base_offset, run.offset, run.length));
  MarkWritten(run.file);
  return {};
}

Status OutputFiles::Note(std::string record) {
  return journal_ != nullptr ? journal_->Append(record) : Status();
}

Status OutputFiles::Finish(std::string record) {
  if (journal_ == nullptr) return {};
  const std::lock_guard lock(mutex_);
  finished_.push_back(std::move(record));
  return {};
}

Status OutputFiles::CommitIfDue() {
  if (journal_ == nullptr || Clock::now() < due_.load()) return {};
  const std::unique_lock lock(commit_mutex_, std::try_to_lock);
  if (!lock.owns_lock() || Clock::now() < due_.load()) return {};
  return CommitNow();
}

Status OutputFiles::Commit() {
  const std::lock_guard lock(commit_mutex_);
  return CommitNow();
}

Status OutputFiles::CommitNow() {
  MERGEPIPE_RETURN_IF_ERROR(synced_);
  if (journal_ == nullptr) return {};
  const auto start = Clock::now();
  std::vector<std::string> records;
  {
    const std::lock_guard lock(mutex_);
    records.swap(finished_);
  }
  if (!records.empty()) {
    MERGEPIPE_RETURN_IF_ERROR(SyncWritten());
    for (const std::string& record : records) MERGEPIPE_RETURN_IF_ERROR(journal_->Append(record));
    synced_ = journal_->Sync();
    MERGEPIPE_RETURN_IF_ERROR(synced_);
  }
  const auto end = Clock::now();
  due_ = end + std::max<Clock::duration>(kShortestInterval, (end - start) * kCommitShare);
  return {};
}

// What is written while this runs is marked again, and left to the next time.
Status OutputFiles::SyncWritten() {
  MERGEPIPE_RETURN_IF_ERROR(synced_);
  std::vector<WritableFile*> written;
  {
    const std::lock_guard lock(mutex_);
    for (OpenFile& open : open_) {
      if (open.written) written.push_back(open.file.get());
      open.written = false;
    }
  }
  for (WritableFile* file : written) {
    synced_ = file->Sync();
    MERGEPIPE_RETURN_IF_ERROR(synced_);
  }
  return {};
}

Status OutputFiles::Sync() {
  MERGEPIPE_RETURN_IF_ERROR(SyncWritten());
  for (OpenFile& open : open_) {
    if (!open.file) continue;
    MERGEPIPE_RETURN_IF_ERROR(open.file->Close());
    open.file.reset();
  }
  return {};
}

}  // namespace mergepipe
