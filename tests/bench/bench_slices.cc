#include "bench/bench_slices.h"

#include <algorithm>
#include <chrono>

#include "bench/bench_catalog.h"
#include "run/slices.h"

namespace mergepipe::test {

void SplitIntoFiles(ModelRecord& model, size_t count) {
  ModelLayout& layout = model.layout;
  const ModelFile whole = layout.files.front();
  uint64_t total = 0;
  for (const TensorInfo& tensor : layout.tensors) total += tensor.bytes();
  layout.files.clear();
  uint64_t before = 0;
  for (TensorInfo& tensor : layout.tensors) {
    const uint64_t file = (before + tensor.bytes() / 2) * count / std::max<uint64_t>(total, 1);
    before += tensor.bytes();
    if (layout.files.empty() || layout.files.back().info.inode != whole.info.inode + file) {
      ModelFile& next = layout.files.emplace_back(whole);
      next.name = "model-" + std::to_string(100'000 + file) + "-of-" +
                  std::to_string(100'000 + count) + ".safetensors";
      next.info.inode = whole.info.inode + file;
      next.info.size = whole.data_begin;
    }
    tensor.file = static_cast<uint32_t>(layout.files.size() - 1);
    tensor.offset = layout.files.back().info.size;
    layout.files.back().info.size += tensor.bytes();
  }
}

Result<MadeSlices> MakeSlicesOf(const Plan& plan, const Family& family, OutputForm form, int ranks,
                                StatisticsSource& statistics) {
  const ResolvedInputs inputs = Unchanged(family);
  MERGEPIPE_ASSIGN_OR_RETURN(const OutputLayout layout,
                             form == OutputForm::kSparse
                                 ? SparseLayoutOf(plan)
                                 : ComputeOutputLayout(family.base.layout, plan.options.out_dtype));
  MadeSlices made;
  const auto start = std::chrono::steady_clock::now();
  MERGEPIPE_ASSIGN_OR_RETURN(const auto slices,
                             MakeSlices(plan,
                                        {.inputs = inputs,
                                         .layout = layout,
                                         .staging = "/scratch/outputs/.merged.staging",
                                         .form = form,
                                         .statistics = &statistics},
                                        ranks));
  made.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (const std::string& slice : slices) {
    made.bytes += slice.size();
    made.largest = std::max<uint64_t>(made.largest, slice.size());
  }
  return made;
}

}  // namespace mergepipe::test
