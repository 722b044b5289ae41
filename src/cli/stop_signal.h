#pragma once

#include <atomic>

namespace mergepipe {

/// Set once a signal has asked this process to stop: ExecLimits::stop.
const std::atomic<bool>& StopRequested();

/// From here on SIGUSR1, SIGTERM and SIGINT ask this process to stop in order, with what it has
/// finished kept. A second SIGTERM or SIGINT ends it at once, if it comes a second later or more:
/// launchers deliver one signal to a task by several ways. For commands that can stop in order.
void StopOnSignals();

}  // namespace mergepipe
