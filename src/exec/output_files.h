#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <vector>

#include "exec/output_sink.h"
#include "exec/source_files.h"
#include "mergepipe/exec/journal.h"
#include "mergepipe/exec/slice.h"

namespace mergepipe {

/// The files of the staging directory that a slice writes to, opened when first needed, and the
/// journal of what is durable in them.
class OutputFiles final : public OutputSink {
 public:
  /// `sources` gives the bases that are copied from. `journal` may be null: then nothing is
  /// recorded. All must outlive this.
  OutputFiles(FileSystem& files, const std::vector<std::string>& paths, SourceFiles& sources,
              JournalWriter* journal)
      : files_(files), paths_(paths), sources_(sources), journal_(journal), open_(paths.size()) {}

  Status Write(const OutputRun& run) override;
  Status Copy(const CopyRun& run) override;
  Status Note(std::string record) override;
  Status Finish(std::string record) override;
  Status CommitIfDue() override;
  Status Commit() override;
  /// Closes the files too.
  Status Sync() override;

 private:
  struct OpenFile {
    std::unique_ptr<WritableFile> file;
    bool written = false;  // since the last sync began
  };

  Result<WritableFile*> At(uint32_t file);
  void MarkWritten(uint32_t file);
  Status SyncWritten();
  Status CommitNow();

  FileSystem& files_;
  const std::vector<std::string>& paths_;
  SourceFiles& sources_;
  JournalWriter* journal_;
  std::mutex mutex_;
  std::vector<OpenFile> open_;
  std::vector<std::string> finished_;  // records that wait for a sync

  std::mutex commit_mutex_;  // held while one commits
  Status synced_;            // a failed sync is final: the next one would prove nothing
  using Clock = std::chrono::steady_clock;
  std::atomic<Clock::time_point> due_{Clock::now()};
};

}  // namespace mergepipe
