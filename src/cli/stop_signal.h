#pragma once

#include <atomic>

namespace mergepipe {

/// Set once a signal has asked this process to stop: ExecLimits::stop.
const std::atomic<bool>& StopRequested();

/// From here on SIGUSR1, SIGTERM and SIGINT ask this process to stop in order, with what it has
/// finished kept; a second one ends it at once. For commands that can stop in order.
void StopOnSignals();

}  // namespace mergepipe
