#include "run/slices.h"

#include <map>
#include <unordered_map>

namespace mergepipe {
namespace {

std::vector<SourceFile> SourceFilesOf(const ModelLayout& layout) {
  std::vector<SourceFile> files;
  for (uint32_t i = 0; i < layout.files.size(); ++i) {
    const ModelFile& file = layout.files[i];
    files.push_back({layout.FilePath(i), file.info.size, file.info.mtime_ns, file.data_begin});
  }
  return files;
}

SourceTensor SourceOf(const TensorInfo& tensor) {
  return {true, tensor.dtype, tensor.file, tensor.offset};
}

using TensorsByName = std::unordered_map<std::string_view, const TensorInfo*>;

// Which ranks share a tensor, and its place among the shared ones.
struct Sharing {
  int first_rank = 0;
  int last_rank = 0;
  uint32_t ordinal = 0;
};

std::map<uint32_t, Sharing> FindSharing(const std::vector<PlanSlice>& slices) {
  std::map<uint32_t, Sharing> sharing;
  for (size_t rank = 0; rank < slices.size(); ++rank) {
    for (const TensorRange& range : slices[rank].ranges) {
      const auto [it, first] = sharing.try_emplace(range.tensor);
      if (first) it->second.first_rank = static_cast<int>(rank);
      it->second.last_rank = static_cast<int>(rank);
    }
  }
  uint32_t shared = 0;
  for (auto& [tensor, ranks] : sharing) {
    if (ranks.first_rank != ranks.last_rank) ranks.ordinal = shared++;
  }
  return sharing;
}

class SliceBuilder {
 public:
  SliceBuilder(const Plan& plan, const ResolvedInputs& inputs, const OutputLayout& layout,
               const std::string& staging)
      : plan_(plan), inputs_(inputs), layout_(layout) {
    common_.block_size = plan.options.block_size;
    common_.strategy = plan.options.strategy;
    common_.allow_nonfinite = plan.options.allow_nonfinite;
    common_.base_files = SourceFilesOf(inputs.base.record.layout);
    for (const ResolvedModel& expert : inputs.experts) {
      common_.expert_files.push_back(SourceFilesOf(expert.record.layout));
      common_.expert_ids.push_back(expert.record.id);
      TensorsByName& by_name = expert_tensors_.emplace_back();
      for (const TensorInfo& tensor : expert.record.layout.tensors)
        by_name.emplace(tensor.name, &tensor);
    }
    for (const OutputFile& file : layout.files)
      common_.output_files.push_back(JoinPath(staging, file.name));
  }

  Slice Build(const PlanSlice& ranges, const std::map<uint32_t, Sharing>& sharing) const {
    Slice slice = common_;
    for (const TensorRange& range : ranges.ranges) {
      TensorPart part = MakePart(range);
      const Sharing& ranks = sharing.at(range.tensor);
      part.first_rank = ranks.first_rank;
      part.last_rank = ranks.last_rank;
      part.shared_ordinal = ranks.ordinal;
      slice.parts.push_back(std::move(part));
      slice.merge_share += RangeMergeBytes(plan_, range);
      slice.compare_share += RangeCompareBytes(plan_, range);
    }
    return slice;
  }

 private:
  TensorPart MakePart(const TensorRange& range) const {
    const PlannedTensor& planned = plan_.tensors[range.tensor];
    const TensorInfo& out = layout_.tensors[range.tensor];
    TensorPart part;
    part.tensor = range.tensor;
    part.name = planned.name;
    part.elements = planned.elements();
    part.begin = range.begin.value;
    part.end = range.end.value;
    part.merge = planned.rule == TensorRule::kMerge;
    part.compare = planned.compare;
    part.reads = planned.reads;
    part.base = SourceOf(inputs_.base.record.layout.tensors[range.tensor]);
    part.out_dtype = planned.out_dtype;
    part.out_file = out.file;
    part.out_offset = out.offset;
    for (size_t k = 0; k < planned.sources.size(); ++k) {
      const ExpertSource& source = planned.sources[k];
      part.experts.push_back(source.present ? SourceOf(*expert_tensors_[k].at(source.name))
                                            : SourceTensor{});
      part.selected.push_back(planned.selected[k].Within(range.begin, range.end));
      part.selected_elements.push_back(
          planned.ElementsOf(planned.selected[k], plan_.options.block_size));
    }
    return part;
  }

  const Plan& plan_;
  const ResolvedInputs& inputs_;
  const OutputLayout& layout_;
  Slice common_;
  std::vector<TensorsByName> expert_tensors_;
};

}  // namespace

std::vector<std::string> MakeSlices(const Plan& plan, const ResolvedInputs& inputs,
                                    const OutputLayout& layout, const std::string& staging,
                                    int ranks) {
  const std::vector<PlanSlice> ranges = PartitionPlan(plan, ranks);
  const auto sharing = FindSharing(ranges);
  const SliceBuilder builder(plan, inputs, layout, staging);
  std::vector<std::string> slices;  // one Slice at a time: their file tables are large
  for (const PlanSlice& slice : ranges)
    slices.push_back(SerializeSlice(builder.Build(slice, sharing)));
  return slices;
}

}  // namespace mergepipe
