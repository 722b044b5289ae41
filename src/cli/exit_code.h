#pragma once

#include "mergepipe/base/error.h"

namespace mergepipe {

/// What the process returns; documented in --help.
enum class ExitCode : int {
  kDone = 0,
  kUsage = 2,
  kBadInput = 3,
  kNoSpace = 4,
  kIo = 5,
  kVerification = 6,
  kInternal = 70,
  kInterrupted = 75,
};

constexpr ExitCode ExitCodeOf(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage: return ExitCode::kUsage;
    case ErrorKind::kBadInput: return ExitCode::kBadInput;
    case ErrorKind::kNoSpace: return ExitCode::kNoSpace;
    case ErrorKind::kIo: return ExitCode::kIo;
    case ErrorKind::kVerification: return ExitCode::kVerification;
    case ErrorKind::kInterrupted: return ExitCode::kInterrupted;
    case ErrorKind::kInternal: break;
  }
  return ExitCode::kInternal;
}

inline constexpr const char* kExitCodeHelp =
    "Exit codes: 0 done; 2 usage; 3 bad or changed input; 4 not enough space or memory; 5 I/O "
    "error;\n"
    "6 verification failed; 75 interrupted, run the same command again; 70 internal error.\n";

}  // namespace mergepipe
