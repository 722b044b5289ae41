#include "mergepipe/io/file.h"

namespace mergepipe {

Result<std::string> ReadSmallFile(FileSystem& files, const std::string& path, uint64_t limit) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto file, files.OpenForReading(path));
  if (file->size() > limit) {
    return Fail(ErrorKind::kBadInput, path,
                "is " + std::to_string(file->size()) + " bytes, over the limit of " +
                    std::to_string(limit));
  }
  std::string text(file->size(), '\0');
  MERGEPIPE_RETURN_IF_ERROR(file->ReadAt(0, std::as_writable_bytes(std::span(text))));
  return text;
}

Status WriteNewFile(FileSystem& files, const std::string& path, std::string_view text) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto file, files.Create(path, text.size()));
  MERGEPIPE_RETURN_IF_ERROR(file->WriteAt(0, std::as_bytes(std::span(text))));
  MERGEPIPE_RETURN_IF_ERROR(file->Sync());
  return file->Close();
}

}  // namespace mergepipe
