#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>

#include "exec/busy_clock.h"
#include "exec/job_observer.h"
#include "exec/memory_plan.h"
#include "exec/output_sink.h"
#include "exec/rank_service.h"
#include "exec/statistics_exchange.h"
#include "exec/unit_maker.h"
#include "exec/work_queue.h"

namespace mergepipe {

/// Works on a slice: workers read ahead, make and write units, all at the same time; the main
/// thread talks with the other ranks meanwhile.
class Pipeline {
 public:
  Pipeline(Communicator& communicator, const Slice& slice, const Strategy& strategy,
           const MemoryPlan& plan, SourceFiles& sources, OutputSink& output, RankService& service,
           std::vector<PartReport>& reports, const std::atomic<bool>* stop = nullptr);

  /// What a slice moves: read, and written.
  static uint64_t TotalBytes(const Slice& slice, const MemoryPlan& plan);

  /// Returns when this rank has nothing left to do: all is written, or it failed, or another rank
  /// announced that it did (no error here: that comes out at the next Agree).
  Status Run();

  uint64_t bytes_written() const { return bytes_written_; }
  uint64_t bytes_copied() const { return bytes_copied_; }
  /// While anything was read, made, written; and read or written.
  double read_seconds() const { return reading_.Seconds(); }
  double compute_seconds() const { return computing_.Seconds(); }
  double write_seconds() const { return writing_.Seconds(); }
  double transfer_seconds() const { return transferring_.Seconds(); }

 private:
  // Workers.
  void Work();
  Status Do(const WorkTask& task, AlignedBuffer& out);
  Status Load(size_t unit);
  Status ObserveShare(size_t job, size_t share);
  Status MakeUnit(size_t unit, AlignedBuffer& out);
  Result<MadeUnit> Compute(const WorkUnit& unit, const UnitData& data, AlignedBuffer& out);
  Result<std::unique_ptr<TensorMerge>> StartPiece(const UnitPiece& piece,
                                                  const UnitData& data) const;
  Status WriteUnit(const MadeUnit& made);
  Status LoadExperts(size_t unit, UnitData& data);
  Status RecordUnit(const WorkUnit& unit, const MadeUnit& made);
  Status ConcludeJob(size_t job);
  Status NextRound(size_t job);
  Status EndRound(size_t job);
  Status LoadMissing(size_t unit, UnitData& data);
  Status EndPieces(const WorkUnit& unit);
  Status CompletePart(size_t part);
  void Fail(const Status& status);

  // The main thread.
  void CoordinateOrAbort(int workers);
  void Coordinate(int workers);
  void AnnounceFailure();
  void StopHere();
  bool WorkersEnded(int workers);
  void AdvanceSharedJobs();
  Status AdvanceSharedJob(size_t job, StatisticsExchange& exchange);
  Status Conclusion() const;

  Communicator& communicator_;
  const Slice& slice_;
  const Strategy& strategy_;
  const MemoryPlan& plan_;
  SourceFiles& sources_;
  OutputSink& output_;
  RankService& service_;
  std::vector<PartReport>& reports_;
  const std::atomic<bool>* stop_;
  BufferPool pool_;
  UnitLoader loader_;
  UnitMaker maker_;
  WorkQueue queue_;
  std::vector<UnitData> data_;  // by unit
  std::vector<std::unique_ptr<JobObserver>> jobs_;

  std::atomic<uint64_t> bytes_written_{0};
  std::atomic<uint64_t> bytes_copied_{0};
  BusyClock reading_;
  BusyClock computing_;
  BusyClock writing_;
  BusyClock transferring_;

  // What workers tell the main thread, and each other.
  mutable std::mutex mutex_;
  std::condition_variable event_;
  std::vector<uint64_t> blocks_left_;     // by part
  std::vector<bool> complete_;            // by part
  std::vector<bool> observed_;            // by job: the round at hand, of a shared one
  std::vector<bool> settled_;             // by job: nothing is left to be exchanged
  std::optional<uint64_t> nonfinite_at_;  // bytes written when the first was seen
  int workers_ended_ = 0;
  Status failure_;
  bool announced_ = false;

  std::map<size_t, StatisticsExchange> exchanges_;  // of shared jobs
};

}  // namespace mergepipe
