#include "mergepipe/exec/scan.h"

#include <atomic>
#include <thread>

#include "exec/aligned_buffer.h"
#include "exec/unit_scanner.h"
#include "mergepipe/kernels/parallel.h"

namespace mergepipe {
namespace {

Status OpenAll(const ScanSlice& slice, SourceFiles& sources) {
  for (const ScanPart& part : slice.parts) {
    if (IsRead(part)) MERGEPIPE_RETURN_IF_ERROR(sources.OpenFor(part));
  }
  return {};
}

// Hands the units out to the threads, until the last one, a failure here, or one on another rank.
class UnitLoop {
 public:
  UnitLoop(Communicator& communicator, const ScanUnits& cut, UnitScanner& scanner)
      : communicator_(communicator), cut_(cut), scanner_(scanner) {}

  Status Run() {
    const auto threads = static_cast<uint64_t>(cut_.threads);
    std::vector<AlignedBuffer> buffers(threads);
    MERGEPIPE_RETURN_IF_ERROR(ParallelFor(threads, cut_.threads, [&](uint64_t thread) -> Status {
      buffers[thread].Reserve(cut_.buffer_bytes);
      return {};
    }));
    return ParallelFor(threads, cut_.threads, [&](uint64_t thread) {
      return Work(buffers[thread].First(cut_.buffer_bytes));
    });
  }

 private:
  Status Work(std::span<std::byte> buffer) {
    for (uint64_t i = next_++; i < cut_.units.size() && !Stopped(); i = next_++) {
      const Status status = scanner_.Scan(cut_.units[i], buffer);
      if (!status) stopped_ = true;
      MERGEPIPE_RETURN_IF_ERROR(status);
    }
    return {};
  }

  // The communicator is the main thread's alone.
  bool Stopped() {
    if (std::this_thread::get_id() == main_thread_ && communicator_.FailureAnnounced()) {
      stopped_ = true;
    }
    return stopped_;
  }

  Communicator& communicator_;
  const ScanUnits& cut_;
  UnitScanner& scanner_;
  const std::thread::id main_thread_ = std::this_thread::get_id();
  std::atomic<uint64_t> next_{0};
  std::atomic<bool> stopped_{false};
};

Status ScanAll(Communicator& communicator, const ScanSlice& slice, const ScanUnits& cut,
               SourceFiles& sources, std::vector<ScanPartReport>& reports) {
  MERGEPIPE_RETURN_IF_ERROR(OpenAll(slice, sources));
  UnitScanner scanner(slice, cut, sources, reports);
  MERGEPIPE_RETURN_IF_ERROR(UnitLoop(communicator, cut, scanner).Run());
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
  const Status scanned = ScanAll(communicator, slice, *cut, sources, report.parts);
  if (!scanned) communicator.AnnounceFailure();
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(scanned));
  report.expert_bytes_read = sources.expert_bytes_read();
  report.base_bytes_read = sources.base_bytes_read();
  return report;
}

}  // namespace mergepipe
