#pragma once

#include <map>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mergepipe/exec/slice.h"
#include "mergepipe/format/model.h"

namespace mergepipe {

/// A model's weight files, and one of its tensors, as a rank needs them.
std::vector<SourceFile> SourceFilesOf(const ModelLayout& layout);
SourceTensor SourceOf(const TensorInfo& tensor);

/// Those files of a model that a slice reads. A large model has hundreds of files, a rank of a
/// large job reads a few: whole tables for all ranks would be most of what rank 0 holds and sends.
class UsedFiles {
 public:
  /// `all` must outlive this.
  explicit UsedFiles(const std::vector<SourceFile>& all) : all_(&all) {}

  /// `tensor` as one of the slice's files; stays as it is if it is absent.
  SourceTensor Use(SourceTensor tensor);
  std::vector<SourceFile> Take() { return std::move(files_); }

 private:
  const std::vector<SourceFile>* all_;
  std::map<uint32_t, uint32_t> places_;  // in files_
  std::vector<SourceFile> files_;
};

/// Gives a Slice or ScanSlice the files that its parts read, out of all files of base and experts,
/// and the parts their places in these.
template <typename AnySlice>
void AddUsedFiles(const std::vector<SourceFile>& base,
                  const std::vector<std::vector<SourceFile>>& experts, AnySlice& slice) {
  UsedFiles of_base(base);
  std::vector<UsedFiles> of_experts(experts.begin(), experts.end());
  for (auto& part : slice.parts) {
    part.base = of_base.Use(part.base);
    for (size_t k = 0; k < part.experts.size(); ++k)
      part.experts[k] = of_experts[k].Use(part.experts[k]);
  }
  slice.base_files = of_base.Take();
  for (UsedFiles& expert : of_experts) slice.expert_files.push_back(expert.Take());
}

using TensorsByName = std::unordered_map<std::string_view, const TensorInfo*>;
TensorsByName IndexTensors(const ModelLayout& layout);

}  // namespace mergepipe
