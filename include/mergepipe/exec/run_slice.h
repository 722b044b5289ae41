#pragma once

#include <atomic>
#include <chrono>

#include "mergepipe/comm/communicator.h"
#include "mergepipe/exec/report.h"
#include "mergepipe/exec/slice.h"
#include "mergepipe/strategy/strategy.h"

namespace mergepipe {

/// Is told how far all ranks together have come, some times a second.
class ProgressListener {
 public:
  virtual ~ProgressListener() = default;
  /// Bytes moved (read, and written) of all that will be.
  virtual void Update(uint64_t done, uint64_t total) = 0;
};

struct ExecLimits {
  int threads = 1;
  uint64_t memory_bytes = 0;             ///< of this rank, everything included
  ProgressListener* progress = nullptr;  ///< told on rank 0, by its main thread; may be null
  /// Set from outside (by a signal) to end the work in order: kInterrupted, on all ranks. May be
  /// null.
  const std::atomic<bool>* stop = nullptr;
  /// How long a step of an analysis may still take then: what it has read is lost if it ends early.
  std::chrono::seconds stop_grace{10};

  bool Stopped() const { return stop != nullptr && stop->load(); }
};

/// The error of a job that was asked to stop. What is finished is kept.
Error InterruptedError();

/// Merges one slice: reads, merges, writes at offsets, syncs the written files, and keeps a journal
/// of what is finished. Collective: every rank calls it with its slice, and all return together,
/// after having agreed: on success each has its own report, else all have the same error. kNoSpace
/// if `limits` cannot hold a resident tensor and one block of every input. Nothing is left running,
/// and no weights are mapped.
Result<SliceReport> RunSlice(FileSystem& files, Communicator& communicator, const Slice& slice,
                             const ExecLimits& limits);

}  // namespace mergepipe
