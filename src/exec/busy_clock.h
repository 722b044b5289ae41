#pragma once

#include <chrono>
#include <mutex>

namespace mergepipe {

/// How long at least one thread was busy with something. Thread-safe.
class BusyClock {
 public:
  /// While it lives, its thread is busy.
  class Running {
   public:
    explicit Running(BusyClock& clock) : clock_(clock) { clock_.Enter(); }
    ~Running() { clock_.Leave(); }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

   private:
    BusyClock& clock_;
  };

  double Seconds() const {
    const std::lock_guard lock(mutex_);
    return seconds_;
  }

 private:
  using Time = std::chrono::steady_clock;

  void Enter() {
    const std::lock_guard lock(mutex_);
    if (running_++ == 0) begin_ = Time::now();
  }
  void Leave() {
    const std::lock_guard lock(mutex_);
    if (--running_ == 0) seconds_ += std::chrono::duration<double>(Time::now() - begin_).count();
  }

  mutable std::mutex mutex_;
  int running_ = 0;
  Time::time_point begin_;
  double seconds_ = 0;
};

}  // namespace mergepipe
