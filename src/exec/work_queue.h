#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "exec/memory_plan.h"

namespace mergepipe {

/// What a worker does next.
struct WorkTask {
  enum class Kind {
    kLoad,      ///< read a unit
    kStartJob,  ///< a job whose units are not read ahead, or which has none
    kObserve,   ///< a share of a job's units
    kMake,      ///< make and write a unit
  };
  Kind kind = Kind::kLoad;
  size_t index = 0;  ///< of the unit, or of the job
  size_t share = 0;  ///< kObserve
};

/// Hands out the work on a slice to its workers: units are read in order, as far ahead as memory
/// allows, and what has been read is made as soon as a thread may compute, the earliest first.
/// Thread-safe.
class WorkQueue {
 public:
  explicit WorkQueue(const MemoryPlan& plan, std::vector<uint64_t> unit_memory);

  /// Waits for the next task. Nothing once all is done, or after Stop. kObserve and kMake come with
  /// the right to compute, until EndComputing.
  std::optional<WorkTask> Next();
  void EndComputing();

  /// A unit was read. Returns its job if that is now all in memory.
  std::optional<size_t> Loaded(size_t unit);
  /// Lets a job be observed in so many shares; or, all observed, be made.
  void Observe(size_t job, size_t shares);
  void MakeJob(size_t job);
  /// A unit is written: its memory is free.
  void Made(size_t unit);

  /// No more tasks are handed out.
  void Stop();
  bool stopped() const;
  bool AllMade() const;

 private:
  struct Ready {
    size_t order;  // of the first unit it concerns
    WorkTask::Kind kind;
    size_t index;
    size_t share;
    auto operator<=>(const Ready&) const = default;
  };

  std::optional<WorkTask> NextReady();
  std::optional<WorkTask> NextLoad();
  bool Done() const { return units_left_ == 0 && jobs_left_ == 0; }

  const MemoryPlan& plan_;
  std::vector<uint64_t> unit_memory_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::set<Ready> ready_;
  std::vector<size_t> job_units_left_;  // to be read
  size_t next_unit_ = 0;
  size_t next_job_ = 0;
  size_t units_left_;
  size_t jobs_left_;
  uint64_t memory_in_use_ = 0;
  int computing_ = 0;
  bool stopped_ = false;
};

}  // namespace mergepipe
