#include "mergepipe/base/log.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

spdlog::logger& Logger() {
  static spdlog::logger logger("mergepipe", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  return logger;
}

}  // namespace

void StartLog(LogLevel level, int rank) {
  spdlog::logger& logger = Logger();
  logger.set_pattern(rank == 0 ? "mergepipe: %l: %v"
                               : fmt::format("[rank {}] mergepipe: %l: %v", rank));
  logger.flush_on(spdlog::level::trace);
  switch (level) {
    case LogLevel::kQuiet: logger.set_level(spdlog::level::off); break;
    case LogLevel::kNormal: logger.set_level(spdlog::level::warn); break;
    case LogLevel::kVerbose: logger.set_level(spdlog::level::info); break;
  }
}

void LogWarning(std::string_view text) { Logger().warn("{}", EscapeControl(text)); }

void LogInfo(std::string_view text) { Logger().info("{}", EscapeControl(text)); }

}  // namespace mergepipe
