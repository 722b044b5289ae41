#include "run/slices.h"

#include "run/known_blocks.h"
#include "run/source_tables.h"

namespace mergepipe {
namespace {

PlanWork WorkOf(const SliceContext& context) {
  if (context.sparse != nullptr) return PlanWork::kMaterialize;
  return context.form == OutputForm::kSparse ? PlanWork::kSparseMerge : PlanWork::kMerge;
}

class SliceBuilder {
 public:
  SliceBuilder(const Plan& plan, const SliceContext& context)
      : plan_(plan), context_(context), known_(plan, context.statistics) {
    common_.block_size = plan.options.block_size;
    common_.strategy = plan.options.strategy;
    common_.form = context.form;
    common_.gather_to_root = context.gather_to_root;
    common_.copies_known_blocks = context.copies_known_blocks;
    common_.allow_nonfinite = plan.options.allow_nonfinite;
    base_files_ = SourceFilesOf(context.inputs.base.record.layout);
    for (const ResolvedModel& expert : context.inputs.experts) {
      expert_files_.push_back(SourceFilesOf(expert.record.layout));
      common_.expert_ids.push_back(expert.record.id);
      expert_tensors_.push_back(IndexTensors(expert.record.layout));
    }
    if (context.sparse != nullptr) common_.sparse_file = context.sparse->file;
    for (const OutputFile& file : context.layout.files)
      common_.output_files.push_back(JoinPath(context.staging, file.name));
  }

  Result<Slice> Build(const PlanSlice& ranges, const std::map<uint32_t, TensorSharing>& sharing,
                      int rank) {
    Slice slice = common_;
    if (!context_.journal_directory.empty() && (rank == 0 || !context_.gather_to_root)) {
      slice.journal = JoinPath(context_.journal_directory,
                               std::to_string(context_.attempt) + "." + std::to_string(rank));
    }
    slice.identity = context_.identity;
    for (const TensorRange& range : ranges.ranges) {
      MERGEPIPE_RETURN_IF_ERROR(CheckEarlier(range));
      for (const TensorRange& left : Left(range)) {
        MERGEPIPE_ASSIGN_OR_RETURN(TensorPart part, MakePart(left));
        const TensorSharing& ranks = sharing.at(range.tensor);
        part.first_rank = ranks.first_rank;
        part.last_rank = ranks.last_rank;
        part.shared_ordinal = ranks.ordinal;
        AddShares(left, part, slice);
        slice.parts.push_back(std::move(part));
      }
    }
    AddUsedFiles(base_files_, expert_files_, slice);
    return slice;
  }

 private:
  std::vector<TensorRange> Left(const TensorRange& range) const {
    if (context_.earlier == nullptr) return {range};
    return WithoutDone(range, context_.earlier->done[range.tensor]);
  }

  // What was done may have been recorded before it was found to be wrong.
  Status CheckEarlier(const TensorRange& range) {
    if (context_.earlier == nullptr) return {};
    ProblemList nonfinite;
    for (const PartReport& report : context_.earlier->ReportsIn(range)) {
      const BlockIndex begin(report.begin);
      const BlockIndex end(report.begin + report.block_hashes.size());
      MERGEPIPE_ASSIGN_OR_RETURN(const TensorPart part, MakePart({range.tensor, begin, end}));
      MERGEPIPE_RETURN_IF_ERROR(CheckReport(common_, part, report, nonfinite));
    }
    return nonfinite.ToStatus(ErrorKind::kBadInput);
  }

  void AddShares(const TensorRange& range, const TensorPart& part, Slice& slice) const {
    if (context_.sparse != nullptr) return;
    const uint64_t all_reads = RangeMergeBytes(plan_, range);
    slice.merge_share += all_reads / plan_.tensors[range.tensor].reads * part.reads;
    slice.compare_share += RangeCompareBytes(plan_, range);
  }

  Result<TensorPart> MakePart(const TensorRange& range) {
    const PlannedTensor& planned = plan_.tensors[range.tensor];
    const TensorInfo& out = context_.layout.tensors[range.tensor];
    const BlockSet touched = planned.Touched(plan_.options.block_size);
    TensorPart part;
    part.tensor = range.tensor;
    part.name = planned.name;
    part.elements = planned.elements();
    part.begin = range.begin.value;
    part.end = range.end.value;
    part.base = SourceOf(context_.inputs.base.record.layout.tensors[range.tensor]);
    part.out_dtype = planned.out_dtype;
    part.out_file = out.file;
    part.touched = touched.Within(range.begin, range.end);
    const uint64_t touched_before = BytesBefore(planned, touched, range.begin);
    const uint64_t all_before =
        range.begin.value * plan_.options.block_size * DTypeSize(planned.out_dtype);
    part.out_offset =
        out.offset + (context_.form == OutputForm::kSparse ? touched_before : all_before);
    if (context_.sparse != nullptr) {
      const TensorInfo& made = context_.sparse->layout.tensors[range.tensor];
      part.sparse = {!part.touched.Empty(), made.dtype, 0, made.offset + touched_before};
      return part;
    }
    AddExperts(planned, range, part);
    if (context_.earlier != nullptr) part.conclusion = context_.earlier->conclusions[range.tensor];
    if (!part.conclusion.empty()) part.reads = 1;
    MERGEPIPE_RETURN_IF_ERROR(known_.AddTo(part));
    return part;
  }

  void AddExperts(const PlannedTensor& planned, const TensorRange& range, TensorPart& part) const {
    part.merge = planned.rule == TensorRule::kMerge;
    part.compare = planned.compare;
    part.reads = planned.reads;
    for (size_t k = 0; k < planned.sources.size(); ++k) {
      const ExpertSource& source = planned.sources[k];
      part.experts.push_back(source.present ? SourceOf(*expert_tensors_[k].at(source.name))
                                            : SourceTensor{});
      part.selected.push_back(planned.selected[k].Within(range.begin, range.end));
      part.selected_elements.push_back(planned.CountedElements(k, plan_.options.block_size));
    }
  }

  // Output bytes of those of `blocks` that come before `end`.
  uint64_t BytesBefore(const PlannedTensor& planned, const BlockSet& blocks, BlockIndex end) const {
    return planned.ElementsOf(blocks.Within(BlockIndex(0), end), plan_.options.block_size) *
           DTypeSize(planned.out_dtype);
  }

  const Plan& plan_;
  const SliceContext& context_;
  KnownBlocks known_;
  Slice common_;  // without parts and their files
  std::vector<SourceFile> base_files_;
  std::vector<std::vector<SourceFile>> expert_files_;
  std::vector<TensorsByName> expert_tensors_;
};

}  // namespace

Result<std::vector<std::string>> MakeSlices(const Plan& plan, const SliceContext& context,
                                            int ranks) {
  const std::vector<BlockSet> done =
      context.earlier != nullptr ? context.earlier->done : std::vector<BlockSet>();
  return MakeSlices(plan, context, PartitionPlan(plan, ranks, WorkOf(context), done));
}

Result<std::vector<std::string>> MakeSlices(const Plan& plan, const SliceContext& context,
                                            const std::vector<PlanSlice>& ranges) {
  const auto sharing = FindSharing(ranges);
  SliceBuilder builder(plan, context);
  std::vector<std::string> slices;
  for (size_t rank = 0; rank < ranges.size(); ++rank) {
    MERGEPIPE_ASSIGN_OR_RETURN(const Slice built,
                               builder.Build(ranges[rank], sharing, static_cast<int>(rank)));
    slices.push_back(SerializeSlice(built));
  }
  return slices;
}

}  // namespace mergepipe
