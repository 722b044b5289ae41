#pragma once

#include <string>
#include <vector>

#include "mergepipe/catalog/catalog.h"
#include "mergepipe/io/file.h"

namespace mergepipe {

/// A run as its folder tells it, ready for the catalog.
struct RecordedRun {
  RunRecord run;
  std::string plan_text;
};

/// A folder that does not count.
struct LeftOutRun {
  std::string run_id;  ///< by the folder's name
  std::string why;     ///< a line that names the folder
};

struct RecordedRuns {
  std::vector<RecordedRun> runs;  ///< oldest first
  std::vector<LeftOutRun> left_out;
};

/// Reads the run folders under runs_directory, which need not exist. A run counts if its records
/// have their own hashes and its output still has its manifest.
Result<RecordedRuns> ReadRecordedRuns(FileSystem& files, const std::string& runs_directory);

}  // namespace mergepipe
