#include "format/safetensors_file.h"

#include <algorithm>
#include <span>

namespace mergepipe {
namespace {

constexpr uint64_t kLengthBytes = 8;
// The first bytes of what git leaves in place of a file that git-lfs was to fetch.
constexpr std::string_view kLfsPointer = "version https://git-lfs";

uint64_t DecodeLength(std::string_view bytes) {
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;)
    length = (length << 8) | static_cast<unsigned char>(bytes[i]);
  return length;
}

Result<std::string> ReadPiece(ReadableFile& file, uint64_t offset, uint64_t size) {
  std::string bytes(size, '\0');
  MERGEPIPE_RETURN_IF_ERROR(file.ReadAt(offset, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

// N, once it is known that 8 + N bytes are there and may be held in memory.
Result<uint64_t> ReadHeaderLength(ReadableFile& file) {
  const uint64_t size = file.size();
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string start,
                             ReadPiece(file, 0, std::min<uint64_t>(size, kLfsPointer.size())));
  if (start == kLfsPointer) {
    return Fail(ErrorKind::kBadInput, file.path(), "it is a git-lfs pointer, not the weights",
                "fetch them with 'git lfs pull'");
  }
  if (size < kLengthBytes) {
    return Fail(ErrorKind::kBadInput, file.path(),
                "a file of " + std::to_string(size) + " bytes is too short for safetensors",
                "the file is truncated; fetch it again");
  }
  const uint64_t length = DecodeLength(start);
  if (length > size - kLengthBytes) {
    return Fail(ErrorKind::kBadInput, file.path(),
                "header of " + std::to_string(length) + " bytes is longer than the file (" +
                    std::to_string(size) + " bytes)",
                "the file is truncated, or no safetensors file; fetch it again");
  }
  if (length > kMaxHeaderBytes) {
    return Fail(ErrorKind::kBadInput, file.path(),
                "header of " + std::to_string(length) + " bytes is longer than the limit of " +
                    std::to_string(kMaxHeaderBytes),
                "the file is damaged, or no safetensors file; fetch it again");
  }
  return length;
}

}  // namespace

Result<SafetensorsFile> ReadSafetensorsFile(FileSystem& files, const std::string& path) {
  SafetensorsFile result;
  MERGEPIPE_ASSIGN_OR_RETURN(result.info, files.Stat(path));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto file, files.OpenForReading(path));
  if (file->size() != result.info.size) {
    return Fail(ErrorKind::kBadInput, path, "its size changed while it was opened",
                "wait until it is complete");
  }
  MERGEPIPE_ASSIGN_OR_RETURN(const uint64_t length, ReadHeaderLength(*file));
  result.data_begin = kLengthBytes + length;
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string bytes, ReadPiece(*file, 0, result.data_begin));
  result.header_hash = HashText(bytes);
  MERGEPIPE_ASSIGN_OR_RETURN(result.header,
                             ParseSafetensorsHeader(std::string_view(bytes).substr(kLengthBytes),
                                                    file->size() - result.data_begin, path));
  return result;
}

}  // namespace mergepipe
