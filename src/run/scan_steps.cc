#include "run/scan_steps.h"

#include <algorithm>

#include "mergepipe/plan/statistics.h"

namespace mergepipe {
namespace {

// Parts that follow each other and are of one tensor become one.
void Append(const ScanPart& part, uint64_t block, std::vector<ScanPart>& parts) {
  if (parts.empty() || parts.back().tensor != part.tensor) {
    parts.push_back(part);
    parts.back().blocks = BlockSet(part.blocks.size());
  }
  parts.back().blocks.Add(BlockIndex(block));
}

template <typename T>
void MoveTo(std::vector<T>& from, std::vector<T>& to) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

// Reports come in rank order, and ranks hold consecutive blocks.
Result<std::vector<ScannedTensor>> Assemble(const std::vector<std::string>& reports,
                                            std::vector<PlanningIo>& read) {
  std::vector<ScannedTensor> tensors;
  for (size_t rank = 0; rank < reports.size(); ++rank) {
    MERGEPIPE_ASSIGN_OR_RETURN(ScanReport report, ParseScanReport(reports[rank]));
    read[rank].expert_bytes += report.expert_bytes_read;
    read[rank].base_bytes += report.base_bytes_read;
    for (ScanPartReport& part : report.parts) {
      if (tensors.empty() || tensors.back().tensor != part.tensor) {
        tensors.push_back({part.tensor, {}, {}});
        tensors.back().experts.resize(part.experts.size());
      }
      ScannedTensor& tensor = tensors.back();
      MoveTo(part.base, tensor.base);
      for (size_t k = 0; k < part.experts.size(); ++k) MoveTo(part.experts[k], tensor.experts[k]);
    }
  }
  return tensors;
}

std::vector<std::string> Serialized(const std::vector<ScanSlice>& slices) {
  std::vector<std::string> texts;
  for (const ScanSlice& slice : slices) texts.push_back(SerializeScanSlice(slice));
  return texts;
}

// One step on all ranks; the reports are rank 0's.
Result<std::vector<std::string>> ScanStep(FileSystem& files, Communicator& communicator,
                                          const ExecLimits& limits,
                                          std::vector<std::string> slices) {
  const Result<ScanSlice> slice = ParseScanSlice(communicator.Scatter(std::move(slices)));
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(slice ? Status() : Status(tl::unexpected(slice.error()))));
  MERGEPIPE_ASSIGN_OR_RETURN(const ScanReport report, RunScan(files, communicator, *slice, limits));
  return communicator.Gather(SerializeScanReport(report));
}

// How far all steps have come, from how far the slice of rank 0 in the step at hand has.
class AllSteps final : public ProgressListener {
 public:
  AllSteps(ProgressListener* listener, uint64_t total) : listener_(listener), total_(total) {}

  void StartStep(uint64_t bytes) {
    before_ += step_;
    step_ = bytes;
  }

  void Update(uint64_t done, uint64_t total) override {
    if (listener_ == nullptr || total == 0) return;
    const double share = static_cast<double>(done) / static_cast<double>(total);
    listener_->Update(before_ + static_cast<uint64_t>(share * static_cast<double>(step_)), total_);
  }

 private:
  ProgressListener* listener_;
  uint64_t total_;
  uint64_t before_ = 0;
  uint64_t step_ = 0;
};

}  // namespace

ScanPartitioner::ScanPartitioner(const ResolvedInputs& inputs, const Plan& matched, bool probe,
                                 bool allow_nonfinite)
    : inputs_(inputs), matched_(matched) {
  common_.block_size = matched.options.block_size;
  common_.probe = probe;
  common_.allow_nonfinite = allow_nonfinite;
  base_files_ = SourceFilesOf(inputs.base.record.layout);
  for (const ResolvedModel& expert : inputs.experts) {
    common_.expert_ids.push_back(expert.record.id);
    expert_files_.push_back(SourceFilesOf(expert.record.layout));
    expert_tensors_.push_back(IndexTensors(expert.record.layout));
  }
}

ScanPart ScanPartitioner::PartOf(const WantedTensor& wanted) const {
  const PlannedTensor& tensor = matched_.tensors[wanted.tensor];
  ScanPart part;
  part.tensor = wanted.tensor;
  part.name = tensor.name;
  part.elements = tensor.elements();
  part.base = SourceOf(inputs_.base.record.layout.tensors[wanted.tensor]);
  for (size_t k = 0; k < wanted.experts.size(); ++k) {
    const ExpertSource& source = tensor.sources[k];
    part.experts.push_back(wanted.experts[k] && source.present
                               ? SourceOf(*expert_tensors_[k].at(source.name))
                               : SourceTensor{});
  }
  part.blocks = wanted.blocks;
  part.wants_base = wanted.base;
  return part;
}

uint64_t ScanPartitioner::BlockCost(const ScanPart& part, uint64_t block) const {
  const PlannedTensor& tensor = matched_.tensors[part.tensor];
  const uint64_t elements = tensor.BlockElements(BlockIndex(block), common_.block_size);
  const uint64_t read = common_.probe ? ProbeSample(elements, part.base.dtype).count : elements;
  uint64_t size = DTypeSize(part.base.dtype);
  for (const SourceTensor& expert : part.experts) {
    if (expert.present) size += DTypeSize(expert.dtype);
  }
  return read * size;
}

uint64_t ScanPartitioner::Cost(const WantedTensor& wanted) const {
  const ScanPart part = PartOf(wanted);
  uint64_t cost = 0;
  part.blocks.ForEachRun([&](BlockIndex begin, BlockIndex end) {
    for (uint64_t block = begin.value; block < end.value; ++block) cost += BlockCost(part, block);
  });
  return cost;
}

uint64_t ScanPartitioner::Cost(const std::vector<WantedTensor>& wanted) const {
  uint64_t cost = 0;
  for (const WantedTensor& tensor : wanted) cost += Cost(tensor);
  return cost;
}

std::vector<ScanSlice> ScanPartitioner::Cut(const std::vector<WantedTensor>& wanted,
                                            int ranks) const {
  std::vector<ScanSlice> slices(static_cast<size_t>(ranks), common_);
  const uint64_t share = std::max<uint64_t>(1, CeilDivide(Cost(wanted), slices.size()));
  uint64_t before = 0;
  for (const WantedTensor& tensor : wanted) {
    const ScanPart part = PartOf(tensor);
    part.blocks.ForEachRun([&](BlockIndex begin, BlockIndex end) {
      for (uint64_t block = begin.value; block < end.value; ++block) {
        Append(part, block, slices[before / share].parts);
        before += BlockCost(part, block);
      }
    });
  }
  for (ScanSlice& slice : slices) {
    AddUsedFiles(base_files_, expert_files_, slice);
    for (const ScanPart& part : slice.parts) slice.expert_share += ScanExpertBytes(slice, part);
  }
  return slices;
}

Status ScanOnAll(FileSystem& files, Communicator& communicator, ExecLimits limits, ScanSteps* steps,
                 const ScanPartitioner* partitioner, std::vector<PlanningIo>& read) {
  if (steps != nullptr) read.resize(static_cast<size_t>(communicator.size()));
  AllSteps progress(limits.progress, steps != nullptr ? steps->TotalBytes() : 0);
  limits.progress = &progress;
  for (;;) {
    std::vector<WantedTensor> wanted;
    if (steps != nullptr) {
      wanted = steps->Next();
      progress.StartStep(partitioner->Cost(wanted));
    }
    std::string more = wanted.empty() ? "" : "more";
    communicator.Broadcast(more);
    if (more.empty()) return {};
    MERGEPIPE_ASSIGN_OR_RETURN(
        const std::vector<std::string> reports,
        ScanStep(files, communicator, limits,
                 partitioner == nullptr
                     ? std::vector<std::string>()
                     : Serialized(partitioner->Cut(wanted, communicator.size()))));
    Status stored;
    if (steps != nullptr) {
      auto tensors = Assemble(reports, read);
      stored = tensors ? steps->Store(std::move(*tensors)) : Status(Fail(tensors.error()));
    }
    // What was stored stays: between two steps is the moment to stop.
    if (stored && limits.Stopped()) stored = tl::unexpected(InterruptedError());
    MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(stored));
  }
}

}  // namespace mergepipe
