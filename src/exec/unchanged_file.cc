#include "exec/unchanged_file.h"

namespace mergepipe {

Result<std::unique_ptr<ReadableFile>> OpenUnchanged(FileSystem& files, const SourceFile& source) {
  MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, files.Stat(source.path));
  if (info.size != source.size || info.mtime_ns != source.mtime_ns) {
    return Fail(ErrorKind::kBadInput, source.path,
                "is not the file that its header was read from (size or time differ)",
                "do not change inputs while they are in use; every host must see the same files");
  }
  return files.OpenForStreaming(source.path, TransferMode::kAuto);
}

}  // namespace mergepipe
