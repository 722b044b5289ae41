#include "mergepipe/io/file.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "mergepipe/base/units.h"

namespace mergepipe {
namespace {

constexpr uint64_t kCopyBuffer = kMiB;

// Room for a megabyte at the rest by kDirectAlignment of any offset, so that it can go direct.
class CopyBuffer {
 public:
  CopyBuffer() : memory_(static_cast<std::byte*>(::operator new(kSize, kAlignment))) {}
  ~CopyBuffer() { ::operator delete(memory_, kAlignment); }
  CopyBuffer(const CopyBuffer&) = delete;
  CopyBuffer& operator=(const CopyBuffer&) = delete;

  std::span<std::byte> For(uint64_t offset, size_t size) const {
    return {memory_ + offset % kDirectAlignment, size};
  }

 private:
  static constexpr size_t kSize = kCopyBuffer + kDirectAlignment;
  static constexpr std::align_val_t kAlignment{kDirectAlignment};
  std::byte* memory_;
};

}  // namespace

Status WritableFile::CopyFrom(ReadableFile& source, uint64_t from, uint64_t to, uint64_t length) {
  if (length == 0) return {};
  const CopyBuffer buffer;
  while (length > 0) {
    const size_t size = std::min(length, kCopyBuffer);
    const auto in = buffer.For(from, size);
    const auto out = buffer.For(to, size);
    MERGEPIPE_RETURN_IF_ERROR(source.ReadAt(from, in));
    if (in.data() != out.data()) std::memmove(out.data(), in.data(), size);
    MERGEPIPE_RETURN_IF_ERROR(WriteAt(to, out));
    from += size;
    to += size;
    length -= size;
  }
  return {};
}

Result<std::unique_ptr<ReadableFile>> FileSystem::OpenForStreaming(const std::string& path,
                                                                   TransferMode) {
  return OpenForReading(path);
}

Result<std::unique_ptr<WritableFile>> FileSystem::OpenForWriting(const std::string& path,
                                                                 TransferMode) {
  return OpenForWriting(path);
}

Result<DiskTraits> FileSystem::TraitsOf(const std::string& path) {
  MERGEPIPE_RETURN_IF_ERROR(Stat(path));
  return DiskTraits{.filesystem = "unknown"};
}

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

Status CreateDurableDirectories(FileSystem& files, const std::string& path) {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files.Exists(path));
  if (there) return files.CreateDirectories(path);  // says so if it is none
  const std::string parent = ParentPath(AbsolutePath(path));
  MERGEPIPE_RETURN_IF_ERROR(CreateDurableDirectories(files, parent));
  MERGEPIPE_RETURN_IF_ERROR(files.CreateDirectories(path));
  return files.SyncDirectory(parent);
}

}  // namespace mergepipe
