#include "mergepipe/base/log.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <string>

#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

spdlog::logger& Logger() {
  static spdlog::logger logger("mergepipe", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  return logger;
}

// Without the level in its lines.
spdlog::logger& NoteLogger() {
  static spdlog::logger logger("notes", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  return logger;
}

}  // namespace

void StartLog(LogLevel level, int rank) {
  const std::string who = rank == 0 ? "" : fmt::format("[rank {}] ", rank);
  NoteLogger().set_pattern(who + "mergepipe: %v");
  NoteLogger().flush_on(spdlog::level::trace);
  NoteLogger().set_level(level == LogLevel::kQuiet ? spdlog::level::off : spdlog::level::info);
  spdlog::logger& logger = Logger();
  logger.set_pattern(who + "mergepipe: %l: %v");
  logger.flush_on(spdlog::level::trace);
  switch (level) {
    case LogLevel::kQuiet: logger.set_level(spdlog::level::off); break;
    case LogLevel::kNormal: logger.set_level(spdlog::level::warn); break;
    case LogLevel::kVerbose: logger.set_level(spdlog::level::info); break;
  }
}

void LogWarning(std::string_view text) { Logger().warn("{}", EscapeControl(text)); }

void LogNote(std::string_view text) { NoteLogger().info("{}", EscapeControl(text)); }

void LogInfo(std::string_view text) { Logger().info("{}", EscapeControl(text)); }

}  // namespace mergepipe
