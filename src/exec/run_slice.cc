#include "mergepipe/exec/run_slice.h"

#include <sys/resource.h>

#include <chrono>

#include "exec/output_files.h"
#include "exec/pipeline.h"

namespace mergepipe {
namespace {

class Stopwatch {
 public:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

uint64_t PeakMemory() {
  struct rusage usage {};
  if (::getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

// Where this rank's output goes: into its files, or to rank 0.
class Outputs {
 public:
  Outputs(FileSystem& files, Communicator& communicator, const Slice& slice, SourceFiles& sources,
          JournalWriter* journal)
      : local_(files, slice.output_files, sources, journal),
        remote_(communicator),
        receiver_(communicator, local_),
        to_root_(slice.gather_to_root && !communicator.is_root()),
        receives_(slice.gather_to_root && communicator.is_root()) {}

  OutputSink& sink() { return to_root_ ? static_cast<OutputSink&>(remote_) : local_; }
  RemoteOutput* remote() { return to_root_ ? &remote_ : nullptr; }
  OutputReceiver* receiver() { return receives_ ? &receiver_ : nullptr; }

 private:
  OutputFiles local_;
  RemoteOutput remote_;
  OutputReceiver receiver_;
  bool to_root_;
  bool receives_;
};

Result<std::unique_ptr<JournalWriter>> OpenJournal(FileSystem& files, const Slice& slice) {
  if (slice.journal.empty()) return nullptr;
  return JournalWriter::Create(files, slice.journal, slice.identity);
}

Status Execute(FileSystem& files, Communicator& communicator, const Slice& slice,
               const Strategy& strategy, const ExecLimits& limits, SliceReport& report) {
  const auto plan = PlanMemory(slice, strategy, limits);
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(plan ? Status() : Status(tl::unexpected(plan.error()))));
  SourceFiles sources(files, slice.base_files, slice.expert_files,
                      {Bytes(slice.merge_share), Bytes(slice.compare_share)});
  const auto journal = OpenJournal(files, slice);
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(journal ? Status() : Status(tl::unexpected(journal.error()))));
  Outputs outputs(files, communicator, slice, sources, journal->get());
  RankService service(communicator, outputs.remote(), outputs.receiver(),
                      communicator.is_root() ? limits.progress : nullptr,
                      Pipeline::TotalBytes(slice, *plan));
  Pipeline pipeline(communicator, slice, strategy, *plan, sources, outputs.sink(), service,
                    report.parts, limits.stop);

  const Stopwatch merging;
  const Status ran = pipeline.Run();
  // Also after a failure: what is finished is there for the next attempt.
  const Status committed = outputs.sink().Commit();
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(ran ? committed : ran));
  report.merge_seconds = merging.Seconds();
  report.read_seconds = pipeline.read_seconds();
  report.compute_seconds = pipeline.compute_seconds();
  report.write_seconds = pipeline.write_seconds();
  report.transfer_seconds = pipeline.transfer_seconds();

  const Stopwatch syncing;
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(outputs.sink().Sync()));
  report.sync_seconds = syncing.Seconds();

  report.expert_bytes_read = sources.expert_bytes_read();
  report.compare_bytes_read = sources.compare_bytes_read();
  report.base_bytes_read = sources.base_bytes_read();
  report.output_bytes_written = pipeline.bytes_written();
  report.copied_bytes = pipeline.bytes_copied();
  return {};
}

}  // namespace

Error InterruptedError() {
  return Error(ErrorKind::kInterrupted, "signal", "stopped before the end",
               "run the same command again: it goes on from here");
}

Result<SliceReport> RunSlice(FileSystem& files, Communicator& communicator, const Slice& slice,
                             const ExecLimits& limits) {
  const auto row = FindStrategy(slice.strategy.name);
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(row ? Status() : Status(tl::unexpected(row.error()))));
  const std::unique_ptr<Strategy> strategy = (*row)->make(slice.strategy);

  SliceReport report;
  report.rank = communicator.rank().value;
  report.host = HostName();
  report.threads = limits.threads;
  MERGEPIPE_RETURN_IF_ERROR(Execute(files, communicator, slice, *strategy, limits, report));
  report.peak_memory_bytes = PeakMemory();
  return report;
}

}  // namespace mergepipe
