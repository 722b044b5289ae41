#include "cli/progress.h"

#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "mergepipe/base/log.h"
#include "mergepipe/base/units.h"

namespace mergepipe {
namespace {

constexpr std::chrono::seconds kLineInterval{5};
constexpr std::chrono::milliseconds kBarInterval{100};
constexpr int kBarWidth = 24;

// "3:07", "1:02:07"
std::string ClockText(double seconds) {
  const auto all = static_cast<uint64_t>(std::ceil(seconds));
  const uint64_t hours = all / 3600;
  return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, all / 60 % 60, all % 60)
                   : fmt::format("{}:{:02}", all / 60, all % 60);
}

std::string Bar(uint64_t done, uint64_t total) {
  const double share = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  const int full = static_cast<int>(share * kBarWidth);
  return "[" + std::string(static_cast<size_t>(full), '#') +
         std::string(static_cast<size_t>(kBarWidth - full), '.') + "] ";
}

}  // namespace

std::string ProgressText(const std::string& what, uint64_t done, uint64_t total, double seconds) {
  done = std::min(done, total);
  const double share = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0.0;
  const std::string left =
      rate > 0 ? ClockText(static_cast<double>(total - done) / rate) + " left" : "starting";
  return fmt::format("{} {:3.0f} % | {} of {} | {}/s | {}", what, std::floor(100 * share),
                     FormatBytes(Bytes(done)), FormatBytes(Bytes(total)),
                     FormatBytes(Bytes(static_cast<uint64_t>(rate))), left);
}

ProgressPrinter::ProgressPrinter(ProgressStyle style, std::string what)
    : style_(style), what_(std::move(what)) {}

ProgressPrinter::~ProgressPrinter() {
  if (drawn_ && style_ == ProgressStyle::kBar) std::fputs("\r\033[K", stderr);
}

void ProgressPrinter::Update(uint64_t done, uint64_t total) {
  if (style_ == ProgressStyle::kNone) return;
  const auto now = Clock::now();
  if (!started_) {
    started_ = true;
    start_ = now;
    next_ = now + (style_ == ProgressStyle::kBar ? Clock::duration(kBarInterval)
                                                 : Clock::duration(kLineInterval));
  }
  if (now < next_) return;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const std::string text = ProgressText(what_, done, total, seconds);
  drawn_ = true;
  if (style_ == ProgressStyle::kBar) {
    next_ = now + kBarInterval;
    std::fputs(("\r" + Bar(std::min(done, total), total) + text + "\033[K").c_str(), stderr);
    std::fflush(stderr);
  } else {
    next_ = now + kLineInterval;
    std::fputs(("mergepipe: " + text + "\n").c_str(), stderr);
  }
}

ProgressStyle ParseProgressStyle(const std::string& text) {
  if (text == "none") return ProgressStyle::kNone;
  if (text == "plain") return ProgressStyle::kPlain;
  return ::isatty(STDERR_FILENO) == 1 ? ProgressStyle::kBar : ProgressStyle::kPlain;
}

}  // namespace mergepipe
