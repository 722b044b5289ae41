#pragma once

#include <chrono>
#include <cstdio>
#include <string>

#include "mergepipe/exec/run_slice.h"

namespace mergepipe {

/// How progress is shown: `kAuto` is a bar on a terminal, and plain lines elsewhere.
enum class ProgressStyle { kNone, kPlain, kBar };

/// "merging  45 % | 2.7 GiB of 6.0 GiB | 1.2 GiB/s | 0:03 left"
std::string ProgressText(const std::string& what, uint64_t done, uint64_t total, double seconds);

/// Shows progress on stderr: a bar that is drawn anew several times a second and goes away at the
/// end, or a line every few seconds, for logs.
class ProgressPrinter final : public ProgressListener {
 public:
  /// `what` is what is going on: "merging".
  ProgressPrinter(ProgressStyle style, std::string what);
  ~ProgressPrinter() override;
  ProgressPrinter(const ProgressPrinter&) = delete;
  ProgressPrinter& operator=(const ProgressPrinter&) = delete;

  void Update(uint64_t done, uint64_t total) override;

 private:
  using Clock = std::chrono::steady_clock;

  ProgressStyle style_;
  std::string what_;
  bool started_ = false;
  bool drawn_ = false;
  Clock::time_point start_;
  Clock::time_point next_;
};

/// "auto", "plain" or "none" as it is meant for stderr.
ProgressStyle ParseProgressStyle(const std::string& text);

}  // namespace mergepipe
