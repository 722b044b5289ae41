#pragma once

#include <cstdint>
#include <functional>

#include "mergepipe/base/error.h"

/// \file
/// The one place that talks to OpenMP.
namespace mergepipe {

/// Threads that this process may use: the cores in its affinity mask.
int AvailableThreads();

/// Calls body(i) for each i in [0, count), on up to `threads` threads, in no fixed order. All calls
/// are made even if one fails; the error of the smallest i is returned. An exception (out of
/// memory) becomes an error.
Status ParallelFor(uint64_t count, int threads, const std::function<Status(uint64_t)>& body);

/// Calls body(thread, team) at the same time on up to `size` threads, the caller's being thread 0,
/// for work that waits: threads may outnumber the cores. `team` is how many there are in truth. The
/// error of the lowest thread is returned.
Status RunTeam(int size, const std::function<Status(int thread, int team)>& body);

/// body(), with an exception (out of memory) as an error.
Status Guarded(const std::function<Status()>& body);

}  // namespace mergepipe
