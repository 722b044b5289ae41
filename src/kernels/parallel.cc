#include "mergepipe/kernels/parallel.h"

#include <sched.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <new>
#include <optional>

namespace mergepipe {
namespace {

Status Guarded(const std::function<Status(uint64_t)>& body, uint64_t i) {
  try {
    return body(i);
  } catch (const std::bad_alloc&) {
    return Fail(ErrorKind::kNoSpace, "memory", "there is not enough of it",
                "lower --memory-mb or --threads");
  } catch (const std::exception& e) {
    return Fail(ErrorKind::kInternal, "worker thread", e.what(), "please report this defect");
  }
}

}  // namespace

int AvailableThreads() {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return 1;
  return std::max(1, CPU_COUNT(&mask));
}

Status ParallelFor(uint64_t count, int threads, const std::function<Status(uint64_t)>& body) {
  std::mutex mutex;
  std::optional<std::pair<uint64_t, Error>> first;
  const auto run = [&](uint64_t i) {
    const Status status = Guarded(body, i);
    if (status) return;
    const std::lock_guard lock(mutex);
    if (!first || i < first->first) first.emplace(i, status.error());
  };
  const int team =
      static_cast<int>(std::min<uint64_t>(static_cast<uint64_t>(std::max(1, threads)), count));
  if (team <= 1) {
    for (uint64_t i = 0; i < count; ++i) run(i);
  } else {
#pragma omp parallel for num_threads(team) schedule(dynamic, 1)
    for (uint64_t i = 0; i < count; ++i) run(i);
  }
  if (first) return tl::unexpected(first->second);
  return {};
}

}  // namespace mergepipe
