#include "mergepipe/exec/run_slice.h"

#include <sys/resource.h>

#include <chrono>

#include "exec/nonfinite_check.h"
#include "exec/part_merger.h"

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

// The parts of a slice in the order in which they are made: first those that are shared with other
// ranks, in two waves (every rank has at most one shared part in each, so all groups of a wave
// exchange their statistics at the same time), then the rank's own.
enum class Wave { kEvenShared, kOddShared, kOwn };

Wave WaveOf(const TensorPart& part) {
  if (!part.shared()) return Wave::kOwn;
  return part.shared_ordinal % 2 == 0 ? Wave::kEvenShared : Wave::kOddShared;
}

// After the first tensor with NaN or infinity a rank goes on for so many bytes of output, to name
// more of them in one go.
constexpr uint64_t kBytesAfterNonFinite = uint64_t{1} << 30;

Status MergeParts(Communicator& communicator, const Slice& slice, PartMerger& merger,
                  SliceReport& report) {
  Status failure;
  ProblemList nonfinite;
  uint64_t nonfinite_at = 0;
  bool going = true;
  const auto fail = [&](const Error& error) {
    failure = tl::unexpected(error);
    communicator.AnnounceFailure();
    going = false;
  };
  for (const Wave wave : {Wave::kEvenShared, Wave::kOddShared, Wave::kOwn}) {
    for (size_t i = 0; i < slice.parts.size(); ++i) {
      if (WaveOf(slice.parts[i]) != wave) continue;
      if (!going) {
        merger.Refuse(slice.parts[i]);
        continue;
      }
      const Result<PartOutcome> outcome = merger.Merge(slice.parts[i], report.parts[i]);
      if (!outcome) {
        fail(outcome.error());
      } else if (*outcome == PartOutcome::kStopped) {
        going = false;
      } else {
        if (nonfinite.empty()) nonfinite_at = merger.bytes_written();
        CheckFinite(slice, slice.parts[i], report.parts[i], nonfinite);
        if (!nonfinite.empty() && merger.bytes_written() - nonfinite_at > kBytesAfterNonFinite) {
          fail(nonfinite.ToStatus(ErrorKind::kBadInput).error());
        }
      }
    }
  }
  if (failure && !nonfinite.empty()) fail(nonfinite.ToStatus(ErrorKind::kBadInput).error());
  return failure;
}

Status Execute(FileSystem& files, Communicator& communicator, const Slice& slice,
               const Strategy& strategy, const ExecLimits& limits, SliceReport& report) {
  SourceFiles sources(files, slice.base_files, slice.expert_files,
                      {Bytes(slice.merge_share), Bytes(slice.compare_share)});
  OutputFiles outputs(files, slice.output_files);
  PartMerger merger(files, communicator, slice, strategy, limits, sources, outputs);
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(merger.CheckMemory()));

  report.parts.resize(slice.parts.size());
  const Stopwatch merging;
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(MergeParts(communicator, slice, merger, report)));
  report.merge_seconds = merging.Seconds();

  const Stopwatch syncing;
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(outputs.SyncAndClose()));
  report.sync_seconds = syncing.Seconds();

  report.expert_bytes_read = sources.expert_bytes_read();
  report.compare_bytes_read = sources.compare_bytes_read();
  report.base_bytes_read = sources.base_bytes_read();
  report.output_bytes_written = merger.bytes_written();
  report.copied_bytes = merger.bytes_copied();
  return {};
}

}  // namespace

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
