#include "exec/work_queue.h"

namespace mergepipe {

WorkQueue::WorkQueue(const MemoryPlan& plan, std::vector<uint64_t> unit_memory)
    : plan_(plan),
      unit_memory_(std::move(unit_memory)),
      units_left_(plan.work.units.size()),
      jobs_left_(plan.work.jobs.size()) {
  for (const ObserveJob& job : plan.work.jobs) job_units_left_.push_back(job.end - job.begin);
}

std::optional<WorkTask> WorkQueue::NextReady() {
  if (ready_.empty() || computing_ == plan_.computing) return std::nullopt;
  const Ready first = *ready_.begin();
  ready_.erase(ready_.begin());
  ++computing_;
  return WorkTask{first.kind, first.index, first.share};
}

std::optional<WorkTask> WorkQueue::NextLoad() {
  const auto& jobs = plan_.work.jobs;
  if (next_job_ < jobs.size() && jobs[next_job_].begin <= next_unit_) {
    const size_t job = next_job_;
    const bool read_ahead = jobs[job].holds_experts && jobs[job].begin < jobs[job].end;
    ++next_job_;
    if (!read_ahead) {
      next_unit_ = jobs[job].end;
      return WorkTask{WorkTask::Kind::kStartJob, job, 0};
    }
  }
  if (next_unit_ == plan_.work.units.size()) return std::nullopt;
  const uint64_t memory = unit_memory_[next_unit_];
  if (memory_in_use_ + memory > plan_.unit_bytes) return std::nullopt;
  memory_in_use_ += memory;
  return WorkTask{WorkTask::Kind::kLoad, next_unit_++, 0};
}

std::optional<WorkTask> WorkQueue::Next() {
  std::unique_lock lock(mutex_);
  while (!stopped_ && !Done()) {
    if (const auto task = NextReady()) return task;
    if (const auto task = NextLoad()) return task;
    changed_.wait(lock);
  }
  return std::nullopt;
}

void WorkQueue::EndComputing() {
  const std::lock_guard lock(mutex_);
  --computing_;
  changed_.notify_all();
}

std::optional<size_t> WorkQueue::Loaded(size_t unit) {
  const std::lock_guard lock(mutex_);
  const std::optional<size_t> job = plan_.work.units[unit].job;
  if (job) {
    if (--job_units_left_[*job] == 0) return job;
    return std::nullopt;
  }
  ready_.insert({unit, WorkTask::Kind::kMake, unit, 0});
  changed_.notify_all();
  return std::nullopt;
}

void WorkQueue::Observe(size_t job, size_t shares) {
  const std::lock_guard lock(mutex_);
  for (size_t share = 0; share < shares; ++share)
    ready_.insert({plan_.work.jobs[job].begin, WorkTask::Kind::kObserve, job, share});
  changed_.notify_all();
}

void WorkQueue::MakeJob(size_t job) {
  const std::lock_guard lock(mutex_);
  for (size_t unit = plan_.work.jobs[job].begin; unit < plan_.work.jobs[job].end; ++unit)
    ready_.insert({unit, WorkTask::Kind::kMake, unit, 0});
  --jobs_left_;
  changed_.notify_all();
}

void WorkQueue::Made(size_t unit) {
  const std::lock_guard lock(mutex_);
  memory_in_use_ -= unit_memory_[unit];
  --units_left_;
  changed_.notify_all();
}

void WorkQueue::Stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

bool WorkQueue::stopped() const {
  const std::lock_guard lock(mutex_);
  return stopped_;
}

bool WorkQueue::AllMade() const {
  const std::lock_guard lock(mutex_);
  return Done();
}

}  // namespace mergepipe
