#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "mergepipe/io/budget_gate.h"
#include "mergepipe/io/file.h"

namespace mergepipe::test {

/// A file system (which must outlive it), with the bytes counted that are read from each path.
class CountingFileSystem : public FileSystem {
 public:
  explicit CountingFileSystem(FileSystem& files = PosixFileSystem()) : real_(files) {}

  uint64_t BytesRead(const std::string& path) { return counts_[path].load(); }

  Result<std::unique_ptr<ReadableFile>> OpenForReading(const std::string& path) override {
    MERGEPIPE_ASSIGN_OR_RETURN(auto file, real_.OpenForReading(path));
    return CountReads(std::move(file), counts_[path]);
  }
  Result<std::unique_ptr<WritableFile>> Create(const std::string& path, uint64_t size) override {
    return real_.Create(path, size);
  }
  Result<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) override {
    return real_.OpenForWriting(path);
  }
  Result<FileInfo> Stat(const std::string& path) override { return real_.Stat(path); }
  Result<bool> Exists(const std::string& path) override { return real_.Exists(path); }
  Result<std::vector<DirectoryEntry>> List(const std::string& directory) override {
    return real_.List(directory);
  }
  Status CreateDirectories(const std::string& path) override {
    return real_.CreateDirectories(path);
  }
  Result<bool> CreateDirectory(const std::string& path) override {
    return real_.CreateDirectory(path);
  }
  Status SyncDirectory(const std::string& path) override { return real_.SyncDirectory(path); }
  Status Rename(const std::string& from, const std::string& to, RenameMode mode) override {
    return real_.Rename(from, to, mode);
  }
  Status Remove(const std::string& path) override { return real_.Remove(path); }
  Result<uint64_t> FreeSpace(const std::string& path) override { return real_.FreeSpace(path); }
  Result<std::unique_ptr<FileLock>> Lock(const std::string& path) override {
    return real_.Lock(path);
  }

 private:
  FileSystem& real_;
  std::map<std::string, std::atomic<uint64_t>> counts_;
};

}  // namespace mergepipe::test
