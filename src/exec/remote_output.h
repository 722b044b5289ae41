#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>

#include "exec/output_sink.h"
#include "mergepipe/comm/communicator.h"

namespace mergepipe {

/// The output of a rank that does not see the output directory: rank 0 writes it. Workers queue
/// their runs in pieces, and wait while the queue is full; the main thread sends them, so many at a
/// time as rank 0 has not acknowledged.
class RemoteOutput final : public OutputSink {
 public:
  /// Bytes that wait in the queue, and that are under way.
  static constexpr uint64_t kQueuedBytes = 64 * kMiB;
  static constexpr uint64_t kPieceBytes = 8 * kMiB;
  static constexpr int kUnderWay = 4;
  static constexpr uint64_t kMemory = kQueuedBytes + (kUnderWay + 2) * kPieceBytes;

  explicit RemoteOutput(Communicator& communicator) : communicator_(communicator) {}

  Status Write(const OutputRun& run) override;
  /// kInternal: units are cut without copies where rank 0 writes.
  Status Copy(const CopyRun& run) override;
  /// Rank 0 keeps the journal of what it writes.
  Status Note(std::string record) override;
  Status Finish(std::string record) override;
  Status CommitIfDue() override { return {}; }
  Status Commit() override { return {}; }
  Status Sync() override { return {}; }

  /// Sends what is queued and takes acknowledgements. Main thread.
  void Service();
  /// Whether rank 0 has all that was queued.
  bool AllArrived() const;
  /// Drops what is queued; who waits goes on.
  void Stop();

 private:
  /// Waits until the queue has room, and takes it. False if there is no need any more.
  bool WaitForRoom(uint64_t bytes);
  void Queue(std::string message);
  Status QueueRecord(uint64_t mark, const std::string& record);

  Communicator& communicator_;
  mutable std::mutex mutex_;
  std::condition_variable room_;
  std::deque<std::string> queue_;
  uint64_t queued_bytes_ = 0;
  bool stopped_ = false;
  int under_way_ = 0;  // main thread only
};

/// Rank 0's side: writes what the others send, and acknowledges it. Main thread.
class OutputReceiver {
 public:
  OutputReceiver(Communicator& communicator, OutputSink& output)
      : communicator_(communicator), output_(output) {}

  /// Takes what has arrived. After an error all the rest is acknowledged and dropped.
  Status Service();

 private:
  Status Take(const std::string& message);

  Communicator& communicator_;
  OutputSink& output_;
  bool failed_ = false;
};

}  // namespace mergepipe
