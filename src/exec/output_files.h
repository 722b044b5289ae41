#pragma once

#include <memory>
#include <vector>

#include "mergepipe/exec/slice.h"
#include "mergepipe/io/file.h"

namespace mergepipe {

/// The files of the staging directory that a slice writes to, opened when first needed.
class OutputFiles {
 public:
  OutputFiles(FileSystem& files, const std::vector<std::string>& paths)
      : files_(files), paths_(paths), open_(paths.size()) {}

  Status Open(uint32_t file);
  WritableFile& At(uint32_t file) { return *open_[file]; }
  /// Makes what was written durable and closes the files.
  Status SyncAndClose();

 private:
  FileSystem& files_;
  const std::vector<std::string>& paths_;
  std::vector<std::unique_ptr<WritableFile>> open_;
};

}  // namespace mergepipe
