#include "exec/pipeline.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <new>
#include <string>

#include "exec/nonfinite_check.h"
#include "mergepipe/base/log.h"
#include "mergepipe/exec/journal.h"
#include "mergepipe/kernels/parallel.h"

namespace mergepipe {
namespace {

// After the first tensor with NaN or infinity a rank goes on for so many bytes of output, to name
// more of them in one go.
constexpr uint64_t kBytesAfterNonFinite = uint64_t{1} << 30;

std::vector<uint64_t> MemoryOfUnits(const Slice& slice, const WorkUnits& work) {
  std::vector<uint64_t> memory;
  for (const WorkUnit& unit : work.units) {
    const bool base = !unit.job || work.jobs[*unit.job].holds_base;
    const bool experts = !unit.job || work.jobs[*unit.job].holds_experts;
    const UnitBytes bytes = BytesOf(slice, unit);
    memory.push_back((base ? UnitLoader::BaseMemory(bytes) : 0) +
                     (experts ? UnitLoader::ExpertMemory(bytes) : 0));
  }
  return memory;
}

}  // namespace

Pipeline::Pipeline(Communicator& communicator, const Slice& slice, const Strategy& strategy,
                   const MemoryPlan& plan, SourceFiles& sources, OutputSink& output,
                   RankService& service, std::vector<PartReport>& reports,
                   const std::atomic<bool>* stop)
    : communicator_(communicator),
      slice_(slice),
      strategy_(strategy),
      plan_(plan),
      sources_(sources),
      output_(output),
      service_(service),
      reports_(reports),
      stop_(stop),
      pool_(plan.unit_bytes + plan.passing_bytes),
      loader_(slice, sources, pool_),
      maker_(slice, reports),
      queue_(plan, MemoryOfUnits(slice, plan.work)),
      data_(plan.work.units.size()),
      blocks_left_(slice.parts.size()),
      complete_(slice.parts.size()),
      observed_(plan.work.jobs.size()),
      settled_(plan.work.jobs.size()) {
  reports_.resize(slice.parts.size());
  for (size_t p = 0; p < slice.parts.size(); ++p)
    UnitMaker::StartReport(slice, slice.parts[p], reports_[p]);
  for (const WorkUnit& unit : plan.work.units) {
    for (const UnitPiece& piece : unit.pieces) blocks_left_[piece.part] += piece.blocks.size();
  }
  for (size_t job = 0; job < plan.work.jobs.size(); ++job) {
    const TensorPart& part = slice.parts[plan.work.jobs[job].part];
    const TensorContext context{part.name, part.selected_elements, part.reads == 1};
    jobs_.push_back(
        std::make_unique<JobObserver>(slice, plan.work, job, strategy.StartTensor(context)));
    if (part.shared()) {
      exchanges_.try_emplace(job, communicator, *jobs_.back());
    } else {
      settled_[job] = true;
    }
  }
}

uint64_t Pipeline::TotalBytes(const Slice& slice, const MemoryPlan& plan) {
  uint64_t total = 0;
  for (const WorkUnit& unit : plan.work.units) {
    const UnitBytes bytes = BytesOf(slice, unit);
    const TensorPart& part = slice.parts[unit.pieces.front().part];
    const bool again = unit.job && !plan.work.jobs[*unit.job].holds_experts;
    total += (bytes.base + bytes.experts) * (again ? part.reads : 1) + bytes.out + bytes.copied;
  }
  return total;
}

Status Pipeline::Run() {
  for (size_t p = 0; p < slice_.parts.size(); ++p) {
    if (blocks_left_[p] > 0) continue;
    if (const Status complete = CompletePart(p); !complete) Fail(complete);
  }
  const Status run = RunTeam(plan_.workers + 1, [&](int thread, int team) -> Status {
    if (thread == 0) {
      CoordinateOrAbort(team - 1);
    } else {
      Work();
    }
    return {};
  });
  MERGEPIPE_RETURN_IF_ERROR(run);
  return Conclusion();
}

// --- workers

void Pipeline::Work() {
  AlignedBuffer out;
  while (const auto task = queue_.Next()) {
    const Status status = Guarded([&] { return Do(*task, out); });
    if (!status) Fail(status);
  }
  const std::lock_guard lock(mutex_);
  ++workers_ended_;
  event_.notify_all();
}

void Pipeline::Fail(const Status& status) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) failure_ = status;
  }
  queue_.Stop();
  event_.notify_all();
}

Status Pipeline::Do(const WorkTask& task, AlignedBuffer& out) {
  switch (task.kind) {
    case WorkTask::Kind::kLoad: return Load(task.index);
    case WorkTask::Kind::kStartJob: return NextRound(task.index);
    case WorkTask::Kind::kObserve: return ObserveShare(task.index, task.share);
    case WorkTask::Kind::kMake: return MakeUnit(task.index, out);
  }
  return {};
}

Status Pipeline::Load(size_t u) {
  const WorkUnit& unit = plan_.work.units[u];
  {
    const BusyClock::Running reading(reading_);
    const BusyClock::Running transferring(transferring_);
    if (!unit.job || plan_.work.jobs[*unit.job].holds_base)
      MERGEPIPE_RETURN_IF_ERROR(loader_.LoadBase(unit, data_[u]));
    MERGEPIPE_RETURN_IF_ERROR(LoadExperts(u, data_[u]));
  }
  const auto job = queue_.Loaded(u);
  return job ? NextRound(*job) : Status();
}

// What of a unit is not held.
Status Pipeline::LoadMissing(size_t u, UnitData& data) {
  const BusyClock::Running reading(reading_);
  const BusyClock::Running transferring(transferring_);
  if (!data.has_base()) MERGEPIPE_RETURN_IF_ERROR(loader_.LoadBase(plan_.work.units[u], data));
  return data.has_experts() ? Status() : LoadExperts(u, data);
}

// A read that begins is noted: if this attempt ends before it has led to anything, it was lost.
Status Pipeline::LoadExperts(size_t u, UnitData& data) {
  const WorkUnit& unit = plan_.work.units[u];
  const UnitBytes bytes = BytesOf(slice_, unit);
  if (bytes.merged + bytes.compared > 0)
    MERGEPIPE_RETURN_IF_ERROR(output_.Note(BegunRecord(bytes.merged + bytes.compared)));
  return loader_.LoadExperts(unit, data);
}

// All rounds are over: the units can be made, now or by another attempt.
Status Pipeline::ConcludeJob(size_t job) {
  const TensorPart& part = slice_.parts[plan_.work.jobs[job].part];
  FinishedRounds rounds{part.tensor, jobs_[job]->tensor().Conclusion(), 0};
  for (size_t u = plan_.work.jobs[job].begin; u < plan_.work.jobs[job].end; ++u)
    rounds.merged += BytesOf(slice_, plan_.work.units[u]).merged * (part.reads - 1);
  MERGEPIPE_RETURN_IF_ERROR(output_.Finish(JournalRecord(rounds)));
  queue_.MakeJob(job);
  return {};
}

Status Pipeline::NextRound(size_t job) {
  JobObserver& observer = *jobs_[job];
  if (!observer.WantsRound()) {
    {
      const std::lock_guard lock(mutex_);
      settled_[job] = true;
    }
    return ConcludeJob(job);
  }
  const size_t shares = observer.StartRound(static_cast<size_t>(plan_.computing));
  if (shares == 0) return EndRound(job);
  queue_.Observe(job, shares);
  return {};
}

Status Pipeline::ObserveShare(size_t job, size_t share) {
  JobObserver& observer = *jobs_[job];
  const auto [begin, end] = observer.UnitsOf(share);
  for (size_t u = begin; u < end && !queue_.stopped(); ++u) {
    const bool held = data_[u].has_base() && data_[u].has_experts();
    UnitData passing;
    if (!held) {
      passing.experts = data_[u].experts;
      MERGEPIPE_RETURN_IF_ERROR(LoadMissing(u, passing));
    }
    {
      const BusyClock::Running computing(computing_);
      observer.Observe(share, u, held ? data_[u] : passing);
    }
    passing.Release(pool_);
  }
  const bool last = observer.EndShare();
  queue_.EndComputing();
  return last && !queue_.stopped() ? EndRound(job) : Status();
}

Status Pipeline::EndRound(size_t job) {
  JobObserver& observer = *jobs_[job];
  if (observer.part().shared()) {
    const std::lock_guard lock(mutex_);
    observed_[job] = true;
    event_.notify_all();
    return {};
  }
  MERGEPIPE_RETURN_IF_ERROR(observer.Finish(*observer.TakeSum()));
  return NextRound(job);
}

// What merges a piece that is no job's: its part lies in the unit whole if it has to be observed.
Result<std::unique_ptr<TensorMerge>> Pipeline::StartPiece(const UnitPiece& piece,
                                                          const UnitData& data) const {
  const TensorPart& part = slice_.parts[piece.part];
  const bool merges =
      part.merge && !part.sparse.present && std::ranges::any_of(piece.blocks, [&](uint64_t block) {
        return part.touched.Contains(BlockIndex(block));
      });
  if (!merges) return nullptr;
  auto tensor = strategy_.StartTensor({part.name, part.selected_elements, true});
  MERGEPIPE_RETURN_IF_ERROR(part.conclusion.empty() ? ObserveWholePart(slice_, piece, data, *tensor)
                                                    : tensor->Conclude(part.conclusion));
  return tensor;
}

Result<MadeUnit> Pipeline::Compute(const WorkUnit& unit, const UnitData& data, AlignedBuffer& out) {
  const BusyClock::Running computing(computing_);
  std::vector<std::unique_ptr<TensorMerge>> own;
  std::vector<const TensorMerge*> tensors;
  for (const UnitPiece& piece : unit.pieces) {
    if (unit.job) {
      tensors.push_back(&jobs_[*unit.job]->tensor());
      continue;
    }
    MERGEPIPE_ASSIGN_OR_RETURN(auto tensor, StartPiece(piece, data));
    tensors.push_back(tensor.get());
    own.push_back(std::move(tensor));
  }
  return maker_.Make(unit, data, tensors, out);
}

Status Pipeline::MakeUnit(size_t u, AlignedBuffer& out) {
  const WorkUnit& unit = plan_.work.units[u];
  UnitData data = std::move(data_[u]);
  MERGEPIPE_RETURN_IF_ERROR(LoadMissing(u, data));
  MERGEPIPE_ASSIGN_OR_RETURN(const MadeUnit made, Compute(unit, data, out));
  queue_.EndComputing();
  data.Release(pool_);
  MERGEPIPE_RETURN_IF_ERROR(WriteUnit(made));
  MERGEPIPE_RETURN_IF_ERROR(RecordUnit(unit, made));
  MERGEPIPE_RETURN_IF_ERROR(EndPieces(unit));
  queue_.Made(u);
  return output_.CommitIfDue();
}

// Before EndPieces: a complete part's report is changed.
Status Pipeline::RecordUnit(const WorkUnit& unit, const MadeUnit& made) {
  const UnitBytes bytes = BytesOf(slice_, unit);
  FinishedUnit finished;
  finished.moved = {bytes.merged, slice_.form == OutputForm::kFull ? bytes.compared : 0, bytes.base,
                    bytes.out + bytes.copied, bytes.copied + made.unchanged_bytes};
  for (size_t p = 0; p < unit.pieces.size(); ++p)
    maker_.ReportPiece(unit.pieces[p], made.counts[p], finished.reports);
  return output_.Finish(JournalRecord(finished));
}

Status Pipeline::WriteUnit(const MadeUnit& made) {
  const BusyClock::Running writing(writing_);
  const BusyClock::Running transferring(transferring_);
  for (const OutputRun& run : made.writes) {
    MERGEPIPE_RETURN_IF_ERROR(output_.Write(run));
    bytes_written_ += run.bytes.size();
  }
  for (const CopyRun& run : made.copies) {
    MERGEPIPE_RETURN_IF_ERROR(output_.Copy(run));
    bytes_written_ += run.length;
    bytes_copied_ += run.length;
  }
  bytes_copied_ += made.unchanged_bytes;
  return {};
}

Status Pipeline::EndPieces(const WorkUnit& unit) {
  for (const UnitPiece& piece : unit.pieces) {
    bool last = false;
    {
      const std::lock_guard lock(mutex_);
      last = (blocks_left_[piece.part] -= piece.blocks.size()) == 0;
    }
    if (last) MERGEPIPE_RETURN_IF_ERROR(CompletePart(piece.part));
  }
  return {};
}

Status Pipeline::CompletePart(size_t p) {
  const TensorPart& part = slice_.parts[p];
  PartReport& report = reports_[p];
  UnitMaker::FinishReport(part, report);
  ProblemList problems;
  MERGEPIPE_RETURN_IF_ERROR(CheckReport(slice_, part, report, problems));
  const uint64_t written = bytes_written_;
  const std::lock_guard lock(mutex_);
  complete_[p] = true;
  if (!problems.empty() && !nonfinite_at_) nonfinite_at_ = written;
  if (nonfinite_at_ && written > *nonfinite_at_ + kBytesAfterNonFinite) queue_.Stop();
  return {};
}

// --- the main thread

void Pipeline::Coordinate(int workers) {
  if (workers == 0) {
    Fail(mergepipe::Fail(ErrorKind::kNoSpace, "threads",
                         "no thread can be started beside the first", "raise OMP_THREAD_LIMIT"));
  }
  for (bool done = false; !done;) {
    if (communicator_.FailureAnnounced()) queue_.Stop();
    if (stop_ != nullptr && stop_->load() && !queue_.stopped())
      Fail(tl::unexpected(InterruptedError()));
    AdvanceSharedJobs();
    const uint64_t moved = sources_.base_bytes_read() + sources_.expert_bytes_read() +
                           sources_.compare_bytes_read() + sources_.made_bytes_read() +
                           bytes_written_;
    const Status served = service_.Service(moved);
    if (!served) Fail(served);
    if (queue_.stopped()) StopHere();
    done = WorkersEnded(workers) && service_.Finish();
  }
  AnnounceFailure();
}

void Pipeline::AnnounceFailure() {
  if (announced_ || Conclusion()) return;
  announced_ = true;
  communicator_.AnnounceFailure();
}

// The other ranks count on this thread: without it they would wait for ever.
void Pipeline::CoordinateOrAbort(int workers) {
  constexpr int kNoSpaceCode = 4;
  constexpr int kInternalCode = 70;
  try {
    Coordinate(workers);
  } catch (const std::bad_alloc&) {
    LogWarning("memory: there is not enough of it, and the job ends; lower --memory-mb");
    communicator_.Abort(kNoSpaceCode);
  } catch (const std::exception& e) {
    LogWarning(std::string("internal error, and the job ends: ") + e.what());
    communicator_.Abort(kInternalCode);
  }
}

void Pipeline::StopHere() {
  service_.Stop();
  AnnounceFailure();
}

// Else waits a moment: for messages, or, where there are no other ranks, for the workers.
bool Pipeline::WorkersEnded(int workers) {
  std::unique_lock lock(mutex_);
  const bool settled = std::ranges::all_of(settled_, [](bool job) { return job; });
  if (workers_ended_ == workers && settled) return true;
  event_.wait_for(lock, std::chrono::milliseconds(communicator_.size() > 1 ? 1 : 50));
  return false;
}

void Pipeline::AdvanceSharedJobs() {
  for (auto& [job, exchange] : exchanges_) {
    {
      const std::lock_guard lock(mutex_);
      if (settled_[job]) continue;
    }
    const Status advanced = AdvanceSharedJob(job, exchange);
    if (!advanced) Fail(advanced);
  }
}

// Two ranks share one tensor at most, so messages of different jobs cannot be taken for each other.
Status Pipeline::AdvanceSharedJob(size_t job, StatisticsExchange& exchange) {
  if (!exchange.waiting()) {
    bool observed = false;
    {
      const std::lock_guard lock(mutex_);
      observed = observed_[job];
      observed_[job] = false;
    }
    if (!observed && !queue_.stopped()) return {};
    exchange.Offer(observed ? jobs_[job]->TakeSum() : nullptr);
  }
  const auto outcome = exchange.Poll();
  if (outcome && *outcome == StatisticsExchange::Outcome::kPending) return {};
  if (outcome && *outcome == StatisticsExchange::Outcome::kRoundOver) return NextRound(job);
  if (!exchange.waiting()) {
    const std::lock_guard lock(mutex_);
    settled_[job] = true;
  }
  if (!outcome) return tl::unexpected(outcome.error());
  if (*outcome == StatisticsExchange::Outcome::kObserved) {
    return ConcludeJob(job);
  } else {
    queue_.Stop();  // another rank's error comes out at the next Agree
  }
  return {};
}

Status Pipeline::Conclusion() const {
  const std::lock_guard lock(mutex_);
  MERGEPIPE_RETURN_IF_ERROR(failure_);
  ProblemList nonfinite;
  for (size_t p = 0; p < slice_.parts.size() && nonfinite_at_; ++p) {
    if (complete_[p]) CheckFinite(slice_, slice_.parts[p], reports_[p], nonfinite);
  }
  return nonfinite.ToStatus(ErrorKind::kBadInput);
}

}  // namespace mergepipe
