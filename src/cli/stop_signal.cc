#include "cli/stop_signal.h"

#include <csignal>
#include <cstdint>
#include <ctime>

namespace mergepipe {
namespace {

std::atomic<bool> stop_requested{false};
std::atomic<int64_t> first_request{0};  // ns of the monotonic clock
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int64_t>::is_always_lock_free,
              "a signal handler uses them");

int64_t NowNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// Only what signal-safety(7) allows.
extern "C" void RequestStop(int signal) {
  int64_t first = 0;
  const int64_t now = NowNs();
  if (first_request.compare_exchange_strong(first, now)) stop_requested.store(true);
  constexpr int64_t kOneDelivery = 1'000'000'000;
  if (signal == SIGUSR1 || first == 0 || now - first < kOneDelivery) return;
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

}  // namespace

const std::atomic<bool>& StopRequested() { return stop_requested; }

void StopOnSignals() {
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT}) {
    struct sigaction action {};
    action.sa_handler = RequestStop;
    action.sa_flags = SA_RESTART;  // calls go on: only the flag tells
    ::sigemptyset(&action.sa_mask);
    ::sigaction(signal, &action, nullptr);
  }
}

}  // namespace mergepipe
