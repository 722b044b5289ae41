#include "exec/source_files.h"

#include "exec/unchanged_file.h"

namespace mergepipe {

SourceFiles::SourceFiles(FileSystem& files, const std::vector<SourceFile>& base,
                         const std::vector<std::vector<SourceFile>>& experts,
                         const ExpertShares& shares)
    : files_(files),
      base_list_(base),
      expert_lists_(experts),
      merge_share_(shares.merge),
      compare_share_(shares.compare),
      base_(base.size()),
      merge_(experts.size()),
      compare_(experts.size()) {
  for (size_t k = 0; k < experts.size(); ++k) {
    merge_[k].resize(experts[k].size());
    compare_[k].resize(experts[k].size());
  }
}

Result<std::unique_ptr<ReadableFile>> SourceFiles::Open(const SourceFile& source) {
  return OpenUnchanged(files_, source);
}

Status SourceFiles::OpenBase(uint32_t file) {
  if (base_[file]) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(auto opened, Open(base_list_[file]));
  base_[file] = CountReads(std::move(opened), base_bytes_);
  return {};
}

Status SourceFiles::OpenExpert(size_t expert, uint32_t file, std::vector<Files>& open,
                               BudgetShare& share) {
  auto& slot = open[expert][file];
  if (slot) return {};
  const SourceFile& description = expert_lists_[expert][file];
  MERGEPIPE_ASSIGN_OR_RETURN(auto opened, Open(description));
  slot = GateReads(std::move(opened), share, description.data_begin);
  return {};
}

Status SourceFiles::OpenFor(const TensorPart& part) {
  MERGEPIPE_RETURN_IF_ERROR(OpenBase(part.base.file));
  for (size_t k = 0; k < part.experts.size(); ++k) {
    const SourceTensor& source = part.experts[k];
    const bool needed = source.present && (part.compare || !part.selected[k].Empty());
    if (!needed) continue;
    MERGEPIPE_RETURN_IF_ERROR(OpenExpert(k, source.file, part.compare ? compare_ : merge_,
                                         part.compare ? compare_share_ : merge_share_));
  }
  return {};
}

Status SourceFiles::OpenFor(const ScanPart& part) {
  MERGEPIPE_RETURN_IF_ERROR(OpenBase(part.base.file));
  for (size_t k = 0; k < part.experts.size(); ++k) {
    if (!part.experts[k].present) continue;
    MERGEPIPE_RETURN_IF_ERROR(OpenExpert(k, part.experts[k].file, merge_, merge_share_));
  }
  return {};
}

}  // namespace mergepipe
