#include "support/fault_file_system.h"

#include <utility>

namespace mergepipe {
namespace {

class FaultReadableFile final : public ReadableFile {
 public:
  FaultReadableFile(FaultFileSystem& faults, std::unique_ptr<ReadableFile> file)
      : faults_(faults), file_(std::move(file)) {}

  Status ReadAt(uint64_t offset, std::span<std::byte> out) override {
    MERGEPIPE_RETURN_IF_ERROR(faults_.Count("ReadAt", path()));
    return file_->ReadAt(offset, out);
  }
  uint64_t size() const override { return file_->size(); }
  const std::string& path() const override { return file_->path(); }

 private:
  FaultFileSystem& faults_;
  std::unique_ptr<ReadableFile> file_;
};

class FaultWritableFile final : public WritableFile {
 public:
  FaultWritableFile(FaultFileSystem& faults, std::unique_ptr<WritableFile> file)
      : faults_(faults), file_(std::move(file)) {}

  Status WriteAt(uint64_t offset, std::span<const std::byte> bytes) override {
    MERGEPIPE_RETURN_IF_ERROR(faults_.CountWrite(*file_, offset, bytes));
    return file_->WriteAt(offset, bytes);
  }
  Status Sync() override {
    MERGEPIPE_RETURN_IF_ERROR(faults_.Count("Sync", path()));
    return file_->Sync();
  }
  Status Close() override {
    MERGEPIPE_RETURN_IF_ERROR(faults_.Count("Close", path()));
    return file_->Close();
  }
  const std::string& path() const override { return file_->path(); }

 private:
  FaultFileSystem& faults_;
  std::unique_ptr<WritableFile> file_;
};

std::string_view Name(RenameMode mode) {
  switch (mode) {
    case RenameMode::kMustNotExist: return "Rename";
    case RenameMode::kExchange: return "Exchange";
    case RenameMode::kReplace: return "Replace";
  }
  return "?";
}

}  // namespace

FaultFileSystem::FaultFileSystem(FileSystem& files) : files_(files) {}

void FaultFileSystem::FailAt(uint64_t operation, Error error, Repeat repeat) {
  const std::lock_guard lock(mutex_);
  fault_ = Fault{operation, std::move(error), 0, repeat};
}

void FaultFileSystem::FailAt(uint64_t operation, int number, Repeat repeat) {
  const std::lock_guard lock(mutex_);
  fault_ = Fault{operation, std::nullopt, number, repeat};
}

void FaultFileSystem::Stop(const Error& error) {
  const std::lock_guard lock(mutex_);
  fault_ = Fault{log_.size(), error, 0, Repeat::kForever};
}

void FaultFileSystem::Heal() {
  const std::lock_guard lock(mutex_);
  fault_.reset();
}

uint64_t FaultFileSystem::operations() const {
  const std::lock_guard lock(mutex_);
  return log_.size();
}

std::vector<std::string> FaultFileSystem::log() const {
  const std::lock_guard lock(mutex_);
  return log_;
}

bool FaultFileSystem::hit() const {
  const std::lock_guard lock(mutex_);
  return hit_;
}

Status FaultFileSystem::Count(const std::string& call, const std::string& path) {
  const std::lock_guard lock(mutex_);
  return CountLocked(call, path);
}

Status FaultFileSystem::CountLocked(const std::string& call, const std::string& path) {
  const uint64_t operation = log_.size();
  log_.push_back(call + " " + path);
  if (!fault_ || operation < fault_->operation) return {};
  if (operation > fault_->operation && fault_->repeat == Repeat::kOnce) return {};
  hit_ = true;
  if (fault_->error) return tl::unexpected(*fault_->error);
  return tl::unexpected(SystemError(fault_->number, path, call.substr(0, call.find(' '))));
}

Status FaultFileSystem::CountWrite(WritableFile& file, uint64_t offset,
                                   std::span<const std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  const uint64_t operation = log_.size();
  Status counted = CountLocked("WriteAt", file.path());
  const bool torn = !counted && !fault_->error && operation == fault_->operation;
  if (torn) MERGEPIPE_RETURN_IF_ERROR(file.WriteAt(offset, bytes.first(bytes.size() / 2)));
  return counted;
}

Result<std::unique_ptr<ReadableFile>> FaultFileSystem::OpenForReading(const std::string& path) {
  MERGEPIPE_RETURN_IF_ERROR(Count("OpenForReading", path));
  MERGEPIPE_ASSIGN_OR_RETURN(auto file, files_.OpenForReading(path));
  return std::make_unique<FaultReadableFile>(*this, std::move(file));
}

Result<std::unique_ptr<WritableFile>> FaultFileSystem::Create(const std::string& path,
                                                              uint64_t size) {
  MERGEPIPE_RETURN_IF_ERROR(Count("Create", path));
  MERGEPIPE_ASSIGN_OR_RETURN(auto file, files_.Create(path, size));
  return std::make_unique<FaultWritableFile>(*this, std::move(file));
}

Result<std::unique_ptr<WritableFile>> FaultFileSystem::OpenForWriting(const std::string& path) {
  MERGEPIPE_RETURN_IF_ERROR(Count("OpenForWriting", path));
  MERGEPIPE_ASSIGN_OR_RETURN(auto file, files_.OpenForWriting(path));
  return std::make_unique<FaultWritableFile>(*this, std::move(file));
}

Result<FileInfo> FaultFileSystem::Stat(const std::string& path) {
  MERGEPIPE_RETURN_IF_ERROR(Count("Stat", path));
  return files_.Stat(path);
}

Result<bool> FaultFileSystem::Exists(const std::string& path) {
  MERGEPIPE_RETURN_IF_ERROR(Count("Exists", path));
  return files_.Exists(path);
}

Result<std::vector<DirectoryEntry>> FaultFileSystem::List(const std::string& directory) {
  MERGEPIPE_RETURN_IF_ERROR(Count("List", directory));
  return files_.List(directory);
}

Status FaultFileSystem::CreateDirectories(const std::string& path) {
  MERGEPIPE_RETURN_IF_ERROR(Count("CreateDirectories", path));
  return files_.CreateDirectories(path);
}

Result<bool> FaultFileSystem::CreateDirectory(const std::string& path) {
  MERGEPIPE_RETURN_IF_ERROR(Count("CreateDirectory", path));
  return files_.CreateDirectory(path);
}

Status FaultFileSystem::SyncDirectory(const std::string& path) {
  MERGEPIPE_RETURN_IF_ERROR(Count("SyncDirectory", path));
  return files_.SyncDirectory(path);
}

Status FaultFileSystem::Rename(const std::string& from, const std::string& to, RenameMode mode) {
  MERGEPIPE_RETURN_IF_ERROR(Count(std::string(Name(mode)) + " " + from, to));
  return files_.Rename(from, to, mode);
}

Status FaultFileSystem::Remove(const std::string& path) {
  MERGEPIPE_RETURN_IF_ERROR(Count("Remove", path));
  return files_.Remove(path);
}

Result<uint64_t> FaultFileSystem::FreeSpace(const std::string& path) {
  MERGEPIPE_RETURN_IF_ERROR(Count("FreeSpace", path));
  return files_.FreeSpace(path);
}

Result<std::unique_ptr<FileLock>> FaultFileSystem::Lock(const std::string& path) {
  MERGEPIPE_RETURN_IF_ERROR(Count("Lock", path));
  return files_.Lock(path);
}

}  // namespace mergepipe
