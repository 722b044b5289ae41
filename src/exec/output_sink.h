#pragma once

#include <string>

#include "exec/unit_maker.h"

namespace mergepipe {

/// Where a rank's output goes, and what it notes of it in its journal. Write and Copy may be called
/// from several threads, for disjoint ranges; so may Note, Finish and CommitIfDue; the rest from
/// the main thread.
class OutputSink {
 public:
  virtual ~OutputSink() = default;
  virtual Status Write(const OutputRun& run) = 0;
  virtual Status Copy(const CopyRun& run) = 0;

  /// Puts a record into the journal at once.
  virtual Status Note(std::string record) = 0;
  /// The record holds once everything that this thread has written before is durable.
  virtual Status Finish(std::string record) = 0;
  /// Makes what was written durable, and records it, now and then: so often that it takes a small
  /// share of the time.
  virtual Status CommitIfDue() = 0;
  /// The same now.
  virtual Status Commit() = 0;

  /// Makes all that was written durable and ends the writing.
  virtual Status Sync() = 0;
};

}  // namespace mergepipe
