#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "exec/output_sink.h"
#include "exec/source_files.h"
#include "mergepipe/exec/slice.h"

namespace mergepipe {

/// The files of the staging directory that a slice writes to, opened when first needed.
class OutputFiles final : public OutputSink {
 public:
  /// `sources` gives the bases that are copied from. All must outlive this.
  OutputFiles(FileSystem& files, const std::vector<std::string>& paths, SourceFiles& sources)
      : files_(files), paths_(paths), sources_(sources), open_(paths.size()) {}

  Status Write(const OutputRun& run) override;
  Status Copy(const CopyRun& run) override;
  /// Closes the files too.
  Status Sync() override;

 private:
  Result<WritableFile*> At(uint32_t file);

  FileSystem& files_;
  const std::vector<std::string>& paths_;
  SourceFiles& sources_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<WritableFile>> open_;
};

}  // namespace mergepipe
