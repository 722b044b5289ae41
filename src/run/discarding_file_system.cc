#include "run/discarding_file_system.h"

#include <utility>

namespace mergepipe {
namespace {

class DiscardingFile final : public WritableFile {
 public:
  explicit DiscardingFile(std::string path) : path_(std::move(path)) {}

  Status WriteAt(uint64_t /*offset*/, std::span<const std::byte> /*bytes*/) override { return {}; }
  Status Sync() override { return {}; }
  Status Close() override { return {}; }
  const std::string& path() const override { return path_; }

 private:
  std::string path_;
};

class DiscardingFileSystem final : public FileSystem {
 public:
  DiscardingFileSystem(FileSystem& files, std::string discarded)
      : files_(files), discarded_(std::move(discarded)) {}

  Result<std::unique_ptr<ReadableFile>> OpenForReading(const std::string& path) override {
    return files_.OpenForReading(path);
  }
  Result<std::unique_ptr<ReadableFile>> OpenForStreaming(const std::string& path,
                                                         TransferMode mode) override {
    return files_.OpenForStreaming(path, mode);
  }
  Result<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) override {
    if (!IsDiscarded(path)) return tl::unexpected(Refusal(path));
    return std::make_unique<DiscardingFile>(path);
  }
  Result<FileInfo> Stat(const std::string& path) override { return files_.Stat(path); }
  Result<bool> Exists(const std::string& path) override {
    if (IsDiscarded(path)) return true;
    return files_.Exists(path);
  }
  Result<std::vector<DirectoryEntry>> List(const std::string& directory) override {
    return files_.List(directory);
  }
  Result<uint64_t> FreeSpace(const std::string& path) override { return files_.FreeSpace(path); }
  Result<DiskTraits> TraitsOf(const std::string& path) override { return files_.TraitsOf(path); }

  Result<std::unique_ptr<WritableFile>> Create(const std::string& path,
                                               uint64_t /*size*/) override {
    return OpenForWriting(path);
  }
  Status CreateDirectories(const std::string& path) override { return Permit(path); }
  Result<bool> CreateDirectory(const std::string& path) override {
    MERGEPIPE_RETURN_IF_ERROR(Permit(path));
    return true;
  }
  Status SyncDirectory(const std::string& path) override { return Permit(path); }
  Status Rename(const std::string& /*from*/, const std::string& to, RenameMode /*mode*/) override {
    return tl::unexpected(Refusal(to));
  }
  Status Remove(const std::string& path) override { return tl::unexpected(Refusal(path)); }
  Result<std::unique_ptr<FileLock>> Lock(const std::string& path) override {
    return tl::unexpected(Refusal(path));
  }

 private:
  bool IsDiscarded(const std::string& path) const {
    return path == discarded_ || path.starts_with(discarded_ + '/');
  }
  Status Permit(const std::string& path) const {
    return IsDiscarded(path) ? Status() : Status(tl::unexpected(Refusal(path)));
  }
  static Error Refusal(const std::string& path) {
    return Error(ErrorKind::kInternal, path, "is to be written, and nothing may be",
                 "please report this defect");
  }

  FileSystem& files_;
  std::string discarded_;
};

}  // namespace

std::unique_ptr<FileSystem> DiscardWrites(FileSystem& files, std::string discarded) {
  return std::make_unique<DiscardingFileSystem>(files, std::move(discarded));
}

}  // namespace mergepipe
