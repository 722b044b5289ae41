#pragma once

#include <string>
#include <vector>

#include "mergepipe/comm/communicator.h"
#include "mergepipe/io/file.h"

namespace mergepipe {

enum class Verdict {
  kOk,
  kNote,     ///< works, but not as well as it could, or should be known
  kProblem,  ///< a merge would fail
};

/// One thing that was looked at.
struct Finding {
  std::string topic;  ///< "memory", "catalog db.sqlite", ...
  Verdict verdict = Verdict::kOk;
  std::string text;
  std::string remedy = {};          ///< what to do; empty if there is nothing to be done
  ErrorKind kind = ErrorKind::kIo;  ///< what the merge would fail with; of a problem

  bool operator==(const Finding&) const = default;
};

struct DoctorOptions {
  std::string catalog;
  std::string runs_directory = "runs";
  std::string output = {};               ///< of a merge to come; empty: not looked at
  std::vector<std::string> inputs = {};  ///< models, or directories
};

/// Looks at all that a merge depends on: the program and its libraries, the launcher and whether
/// its ranks agree, cores, memory and limits, the filesystems and what they can do, the models, the
/// catalog, and what killed merges left. Reads headers, no weights. Makes and removes a hidden
/// directory where a merge would write, and nothing else.
///
/// Collective; the findings are rank 0's. Of the other hosts it tells what is not well.
Result<std::vector<Finding>> Examine(FileSystem& files, Communicator& communicator,
                                     const DoctorOptions& options);

/// All problems as one error, of the kind of the first.
Status ProblemsOf(const std::vector<Finding>& findings);

}  // namespace mergepipe
