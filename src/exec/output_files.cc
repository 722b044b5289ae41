#include "exec/output_files.h"

namespace mergepipe {

Status OutputFiles::Open(uint32_t file) {
  if (open_[file]) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(const bool visible, files_.Exists(paths_[file]));
  if (!visible) {
    return Fail(ErrorKind::kIo, paths_[file], "is not visible to this rank",
                "--out must be on a filesystem that all hosts share");
  }
  MERGEPIPE_ASSIGN_OR_RETURN(open_[file], files_.OpenForWriting(paths_[file]));
  return {};
}

Status OutputFiles::SyncAndClose() {
  for (auto& file : open_) {
    if (!file) continue;
    MERGEPIPE_RETURN_IF_ERROR(file->Sync());
    MERGEPIPE_RETURN_IF_ERROR(file->Close());
    file.reset();
  }
  return {};
}

}  // namespace mergepipe
