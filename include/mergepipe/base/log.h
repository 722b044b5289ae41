#pragma once

#include <string_view>

namespace mergepipe {

enum class LogLevel { kQuiet, kNormal, kVerbose };

/// Diagnostics on stderr, for whoever runs the program; results never go here. Lines of ranks other
/// than 0 carry `[rank N]`.
void StartLog(LogLevel level, int rank);
/// Shown unless quiet, as "mergepipe: warning: ...".
void LogWarning(std::string_view text);
/// Shown unless quiet, as "mergepipe: ...": what a run does, when nothing is wrong.
void LogNote(std::string_view text);
/// Shown with -v.
void LogInfo(std::string_view text);

}  // namespace mergepipe
