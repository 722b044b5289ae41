#pragma once

#include "exec/unit_maker.h"

namespace mergepipe {

/// Where a rank's output goes. Write and Copy may be called from several threads, for disjoint
/// ranges; the rest from the main thread.
class OutputSink {
 public:
  virtual ~OutputSink() = default;
  virtual Status Write(const OutputRun& run) = 0;
  virtual Status Copy(const CopyRun& run) = 0;
  /// Makes what was written durable.
  virtual Status Sync() = 0;
};

}  // namespace mergepipe
