#include "cli/stop_signal.h"

#include <csignal>

namespace mergepipe {
namespace {

std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler sets it");

extern "C" void RequestStop(int) { stop_requested.store(true); }

}  // namespace

const std::atomic<bool>& StopRequested() { return stop_requested; }

void StopOnSignals() {
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT}) {
    struct sigaction action {};
    action.sa_handler = RequestStop;
    // Calls go on: only the flag tells. The second signal finds the default again.
    action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
    ::sigemptyset(&action.sa_mask);
    ::sigaction(signal, &action, nullptr);
  }
}

}  // namespace mergepipe
