#include "exec/memory_plan.h"

#include <algorithm>
#include <optional>

#include "exec/remote_output.h"
#include "exec/unit_data.h"
#include "exec/unit_maker.h"
#include "mergepipe/base/checked.h"

namespace mergepipe {
namespace {

// What the process takes besides the buffers: code, MPI, headers and reports.
constexpr uint64_t kBaselineMemory = 128 * kMiB;
constexpr uint64_t kLargestTarget = 16 * kMiB;
constexpr uint64_t kSmallestTarget = kMiB;
// Small slices are cut finer, so that each worker has several units: while the first ones are read
// and the last ones written the others wait. Below this, transfers would get slow.
constexpr uint64_t kFineTarget = 4 * kMiB;
constexpr uint64_t kUnitsOfWorker = 32;
// Disks and network filesystems reach their bandwidth with several transfers at a time.
constexpr int kTransfers = 4;

struct Shape {
  uint64_t target = kLargestTarget;
  int computing = 1;
  int transfers = kTransfers;
  bool hold_base = true;
};

class Planner {
 public:
  Planner(const Slice& slice, const Strategy& strategy, const ExecLimits& limits)
      : slice_(slice), strategy_(strategy), limits_(limits) {
    fixed_ = kBaselineMemory + ReportMemory() + (slice.gather_to_root ? RemoteOutput::kMemory : 0);
    const uint64_t left = Left(fixed_);
    threads_ = std::max(1, limits.threads);
    // Statistics take at most a quarter of what is left.
    while (threads_ > 1 && StatisticsMemory(threads_) > left / 4) --threads_;
  }

  Result<MemoryPlan> Plan() const {
    for (const bool hold_base : {true, false}) {
      for (uint64_t target = WantedTarget(); target >= kSmallestTarget; target /= 2) {
        if (auto plan = Try({target, threads_, kTransfers, hold_base}, true)) return *plan;
      }
    }
    // With less read ahead, and then with fewer threads.
    for (int threads = threads_; threads >= 1; threads /= 2) {
      if (auto plan = Try({1, threads, kTransfers, false}, false)) return *plan;
    }
    const Shape least{1, 1, 0, false};
    if (auto plan = Try(least, false)) return *plan;
    return Refuse(Needed(least));
  }

 private:
  // What a shape takes, by use.
  struct Needs {
    uint64_t job = 0;      // the largest job, as far as it is held
    uint64_t unit = 0;     // the largest unit that is read ahead
    uint64_t passing = 0;  // and the largest that a worker reads for the moment
    uint64_t out = 0;
  };

  uint64_t WantedTarget() const {
    uint64_t base = 0;
    for (const TensorPart& part : slice_.parts) {
      const BlockGeometry geometry{slice_.block_size, part.elements};
      base += geometry.ElementsBetween(part.begin, part.end) * DTypeSize(part.base.dtype);
    }
    const uint64_t workers = static_cast<uint64_t>(threads_) + kTransfers;
    return std::clamp(base / (workers * kUnitsOfWorker), kFineTarget, kLargestTarget);
  }

  uint64_t Left(uint64_t used) const {
    return limits_.memory_bytes > used ? limits_.memory_bytes - used : 0;
  }

  // Hashes of every block that is made or read, and those that are known of it.
  uint64_t ReportMemory() const {
    uint64_t hashes = 0;
    for (const TensorPart& part : slice_.parts) {
      const uint64_t inputs = part.merge ? part.experts.size() : 0;
      hashes += (part.end - part.begin) * (2 + inputs) + part.known_base_hashes.size();
      for (const auto& known : part.known_hashes) hashes += known.size();
    }
    // And where each block is, in the units.
    uint64_t blocks = 0;
    for (const TensorPart& part : slice_.parts) blocks += part.end - part.begin;
    return hashes * sizeof(Hash128) + blocks * 2 * sizeof(uint64_t);
  }

  uint64_t StatisticsMemory(int threads) const {
    if (strategy_.ObservationRounds() == 0) return 0;
    // For each thread one, and one of the job before, which waits for its last; and two sums.
    return (2 * static_cast<uint64_t>(threads) + 2) * slice_.expert_files.size() *
           strategy_.StatisticsBytes();
  }

  Needs NeedsOf(const WorkUnits& work) const {
    Needs needs;
    std::vector<uint64_t> jobs(work.jobs.size());
    for (const WorkUnit& unit : work.units) {
      const UnitBytes bytes = BytesOf(slice_, unit);
      const uint64_t base = UnitLoader::BaseMemory(bytes);
      const uint64_t experts = UnitLoader::ExpertMemory(bytes);
      const bool holds_base = !unit.job || work.jobs[*unit.job].holds_base;
      const bool holds_experts = !unit.job || work.jobs[*unit.job].holds_experts;
      const uint64_t held = (holds_base ? base : 0) + (holds_experts ? experts : 0);
      if (unit.job) jobs[*unit.job] += held;
      needs.out = std::max(needs.out, UnitMaker::OutMemory(bytes));
      needs.unit = std::max(needs.unit, held);
      needs.passing = std::max(needs.passing, base + experts - held);
    }
    for (const uint64_t job : jobs) needs.job = std::max(needs.job, job);
    return needs;
  }

  WorkUnits Cut(const Shape& shape) const {
    WorkUnits work = CutIntoUnits(slice_, strategy_, shape.target);
    for (ObserveJob& job : work.jobs) {
      job.holds_experts = slice_.parts[job.part].reads == 1;
      job.holds_base = job.holds_experts && shape.hold_base;
    }
    return work;
  }

  uint64_t Apart(const Shape& shape, const Needs& needs) const {
    const int threads = shape.computing + shape.transfers;
    const auto workers = static_cast<uint64_t>(threads);
    return fixed_ + StatisticsMemory(shape.computing) + workers * (needs.out + needs.passing);
  }

  // Nothing if it does not fit. `ample`: with room to read ahead for every worker.
  std::optional<MemoryPlan> Try(const Shape& shape, bool ample) const {
    WorkUnits work = Cut(shape);
    const Needs needs = NeedsOf(work);
    const int workers = shape.computing + shape.transfers;
    const uint64_t wanted = needs.job + (static_cast<uint64_t>(workers) + 1) * needs.unit;
    const uint64_t left = Left(Apart(shape, needs));
    if (left < (ample ? wanted : needs.job + needs.unit)) return std::nullopt;
    if (limits_.memory_bytes < Apart(shape, needs)) return std::nullopt;
    return MemoryPlan{std::move(work), shape.computing, workers, std::min(left, wanted),
                      static_cast<uint64_t>(workers) * needs.passing};
  }

  uint64_t Needed(const Shape& shape) const {
    const Needs needs = NeedsOf(Cut(shape));
    return Apart(shape, needs) + needs.job + needs.unit;
  }

  tl::unexpected<Error> Refuse(uint64_t needed) const {
    return tl::unexpected(
        Error(ErrorKind::kNoSpace, "--memory-mb",
              FormatBytes(Bytes(limits_.memory_bytes)) +
                  " cannot hold what this rank needs at a time, " + FormatBytes(Bytes(needed)),
              "give at least " + std::to_string(CeilDivide(needed, kMiB)) +
                  " MiB, or lower --resident-mb or --block-size, or use more ranks"));
  }

  const Slice& slice_;
  const Strategy& strategy_;
  const ExecLimits& limits_;
  uint64_t fixed_ = 0;
  int threads_ = 1;
};

}  // namespace

Result<MemoryPlan> PlanMemory(const Slice& slice, const Strategy& strategy,
                              const ExecLimits& limits) {
  return Planner(slice, strategy, limits).Plan();
}

}  // namespace mergepipe
