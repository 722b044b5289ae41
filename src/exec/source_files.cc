#include "exec/source_files.h"

namespace mergepipe {

SourceFiles::SourceFiles(FileSystem& files, const Slice& slice)
    : files_(files),
      slice_(slice),
      merge_share_(Bytes(slice.merge_share)),
      compare_share_(Bytes(slice.compare_share)),
      base_(slice.base_files.size()),
      merge_(slice.expert_files.size()),
      compare_(slice.expert_files.size()) {
  for (size_t k = 0; k < slice.expert_files.size(); ++k) {
    merge_[k].resize(slice.expert_files[k].size());
    compare_[k].resize(slice.expert_files[k].size());
  }
}

Result<std::unique_ptr<ReadableFile>> SourceFiles::Open(const SourceFile& source) {
  MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, files_.Stat(source.path));
  if (info.size != source.size || info.mtime_ns != source.mtime_ns) {
    return Fail(ErrorKind::kBadInput, source.path,
                "is not the file that the plan was made from (size or time differ)",
                "do not change inputs during a merge; every host must see the same files");
  }
  return files_.OpenForReading(source.path);
}

Status SourceFiles::OpenFor(const TensorPart& part) {
  if (auto& base = base_[part.base.file]; !base) {
    MERGEPIPE_ASSIGN_OR_RETURN(auto file, Open(slice_.base_files[part.base.file]));
    base = CountReads(std::move(file), base_bytes_);
  }
  for (size_t k = 0; k < part.experts.size(); ++k) {
    const SourceTensor& source = part.experts[k];
    const bool needed = source.present && (part.compare || !part.selected[k].Empty());
    if (!needed) continue;
    auto& slot = (part.compare ? compare_ : merge_)[k][source.file];
    if (slot) continue;
    const SourceFile& description = slice_.expert_files[k][source.file];
    MERGEPIPE_ASSIGN_OR_RETURN(auto file, Open(description));
    slot = GateReads(std::move(file), part.compare ? compare_share_ : merge_share_,
                     description.data_begin);
  }
  return {};
}

}  // namespace mergepipe
