#include "exec/output_files.h"

namespace mergepipe {

Result<WritableFile*> OutputFiles::At(uint32_t file) {
  if (file >= paths_.size()) {  // it may come from another rank
    return Fail(ErrorKind::kInternal, "output", "has no file " + std::to_string(file),
                "check that all ranks run the same build");
  }
  const std::lock_guard lock(mutex_);
  if (open_[file]) return open_[file].get();
  MERGEPIPE_ASSIGN_OR_RETURN(const bool visible, files_.Exists(paths_[file]));
  if (!visible) {
    return Fail(ErrorKind::kIo, paths_[file], "is not visible to this rank",
                "--out must be on a filesystem that all hosts share, or pass --gather root");
  }
  MERGEPIPE_ASSIGN_OR_RETURN(open_[file], files_.OpenForWriting(paths_[file], TransferMode::kAuto));
  return open_[file].get();
}

Status OutputFiles::Write(const OutputRun& run) {
  MERGEPIPE_ASSIGN_OR_RETURN(WritableFile * file, At(run.file));
  return file->WriteAt(run.offset, run.bytes);
}

Status OutputFiles::Copy(const CopyRun& run) {
  MERGEPIPE_ASSIGN_OR_RETURN(WritableFile * file, At(run.file));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto base, sources_.BaseForCopying(run.base_file));
  return file->CopyFrom(*base, run.base_offset, run.offset, run.length);
}

Status OutputFiles::Sync() {
  for (auto& file : open_) {
    if (!file) continue;
    MERGEPIPE_RETURN_IF_ERROR(file->Sync());
    MERGEPIPE_RETURN_IF_ERROR(file->Close());
    file.reset();
  }
  return {};
}

}  // namespace mergepipe
