#include "mergepipe/exec/scan.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>
#include <thread>

#include "exec/unit_scanner.h"
#include "mergepipe/io/aligned_buffer.h"
#include "mergepipe/kernels/parallel.h"

namespace mergepipe {
namespace {

// Hands the units out to the workers, until the last one, a failure here, or one on another rank.
class UnitLoop {
  using Clock = std::chrono::steady_clock;

 public:
  UnitLoop(Communicator& communicator, const ScanUnits& cut, UnitScanner& scanner,
           const ExecLimits& limits)
      : communicator_(communicator), cut_(cut), scanner_(scanner), limits_(limits) {}

  Status Run() {
    return RunTeam(cut_.workers, [&](int, int) {
      AlignedBuffer buffer;
      const size_t size = cut_.buffer_bytes + UnitScanner::kSlack;
      buffer.Reserve(size);
      return Work(buffer.First(size));
    });
  }

 private:
  Status Work(std::span<std::byte> buffer) {
    for (uint64_t i = next_++; i < cut_.units.size() && !Stopped(); i = next_++) {
      Status status = scanner_.Scan(cut_.units[i], buffer);
      if (status && MustStop()) status = tl::unexpected(InterruptedError());
      if (!status) stopped_ = true;
      MERGEPIPE_RETURN_IF_ERROR(status);
    }
    return {};
  }

  // The communicator is the main thread's alone, and so is telling how far it is.
  bool Stopped() {
    if (std::this_thread::get_id() == main_thread_) {
      if (communicator_.FailureAnnounced()) stopped_ = true;
      if (communicator_.is_root() && limits_.progress != nullptr)
        limits_.progress->Update(next_.load(), cut_.units.size());
    }
    return stopped_;
  }

  // Called by all workers, so that one long unit of the main thread's holds up nothing.
  bool MustStop() {
    if (!limits_.Stopped()) return false;
    const auto now = Clock::now();
    const std::lock_guard lock(mutex_);
    if (!asked_) asked_ = now;
    return now - *asked_ >= limits_.stop_grace;
  }

  Communicator& communicator_;
  const ScanUnits& cut_;
  UnitScanner& scanner_;
  const ExecLimits& limits_;
  const std::thread::id main_thread_ = std::this_thread::get_id();
  std::atomic<uint64_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::optional<Clock::time_point> asked_;  // when stopping was asked for, as far as is known
};

Status ScanAll(Communicator& communicator, const ScanSlice& slice, const ScanUnits& cut,
               SourceFiles& sources, const ExecLimits& limits,
               std::vector<ScanPartReport>& reports) {
  UnitScanner scanner(slice, cut, sources, reports);
  MERGEPIPE_RETURN_IF_ERROR(UnitLoop(communicator, cut, scanner, limits).Run());
  return scanner.CheckFinite();
}

}  // namespace

Result<ScanReport> RunScan(FileSystem& files, Communicator& communicator, const ScanSlice& slice,
                           const ExecLimits& limits) {
  const auto cut = CutScan(slice, limits);
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(cut ? Status() : Status(tl::unexpected(cut.error()))));

  ScanReport report;
  report.rank = communicator.rank().value;
  report.host = HostName();
  SourceFiles sources(files, slice.base_files, slice.expert_files,
                      {.merge = Bytes(slice.expert_share), .compare = Bytes(0)});
  const Status scanned = ScanAll(communicator, slice, *cut, sources, limits, report.parts);
  if (!scanned) communicator.AnnounceFailure();
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(scanned));
  report.expert_bytes_read = sources.expert_bytes_read();
  report.base_bytes_read = sources.base_bytes_read();
  return report;
}

}  // namespace mergepipe
