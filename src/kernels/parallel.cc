#include "mergepipe/kernels/parallel.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <new>
#include <optional>

namespace mergepipe {

Status Guarded(const std::function<Status()>& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return Fail(ErrorKind::kNoSpace, "memory", "there is not enough of it",
                "lower --memory-mb or --threads");
  } catch (const std::exception& e) {
    return Fail(ErrorKind::kInternal, "worker thread", e.what(), "please report this defect");
  }
}

namespace {

// The error of the lowest index.
class FirstError {
 public:
  void Add(uint64_t index, const Status& status) {
    if (status) return;
    const std::lock_guard lock(mutex_);
    if (!first_ || index < first_->first) first_.emplace(index, status.error());
  }
  Status Take() const {
    if (first_) return tl::unexpected(first_->second);
    return {};
  }

 private:
  std::mutex mutex_;
  std::optional<std::pair<uint64_t, Error>> first_;
};

}  // namespace

int AvailableThreads() {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return 1;
  return std::max(1, CPU_COUNT(&mask));
}

Status ParallelFor(uint64_t count, int threads, const std::function<Status(uint64_t)>& body) {
  FirstError error;
  const auto run = [&](uint64_t i) { error.Add(i, Guarded([&] { return body(i); })); };
  const int team =
      static_cast<int>(std::min<uint64_t>(static_cast<uint64_t>(std::max(1, threads)), count));
  if (team <= 1) {
    for (uint64_t i = 0; i < count; ++i) run(i);
  } else {
#pragma omp parallel for num_threads(team) schedule(dynamic, 1)
    for (uint64_t i = 0; i < count; ++i) run(i);
  }
  return error.Take();
}

Status RunTeam(int size, const std::function<Status(int thread, int team)>& body) {
  FirstError error;
  omp_set_dynamic(0);  // by OMP_DYNAMIC there might be one thread only
#pragma omp parallel num_threads(size)
  {
    const int thread = omp_get_thread_num();
    const int team = omp_get_num_threads();
    error.Add(static_cast<uint64_t>(thread), Guarded([&] { return body(thread, team); }));
  }
  return error.Take();
}

}  // namespace mergepipe
