#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mergepipe/base/units.h"
#include "mergepipe/io/file.h"

namespace mergepipe {

/// A disk in memory that can lose power. It keeps two states: what a running process sees, and what
/// a crash leaves. A file's bytes become durable by Sync of that file, a directory's names by
/// SyncDirectory of that directory, and by nothing else: syncing a file does not make its name
/// durable, nor does syncing a directory make what its entries lead to durable.
///
/// Thread-safe. Paths are taken by their names ("/a/../b" is "/b"); "/" exists; there are no links.
/// A second Lock is refused whoever asks.
class MemoryFileSystem final : public FileSystem {
 public:
  explicit MemoryFileSystem(Bytes capacity = Bytes(uint64_t{1} << 40));
  ~MemoryFileSystem() override;

  /// The power fails and comes back: everything that was not made durable is lost, locks are
  /// released, and files opened before only report errors.
  void Crash();
  /// The same, but each file's unsynced bytes, and each directory's unsynced names, are lost or
  /// kept by the toss of a coin seeded with `seed`: a kernel may write back early, in any order.
  void Crash(uint64_t seed);

  Result<std::unique_ptr<ReadableFile>> OpenForReading(const std::string& path) override;
  Result<std::unique_ptr<WritableFile>> Create(const std::string& path, uint64_t size) override;
  Result<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) override;
  Result<FileInfo> Stat(const std::string& path) override;
  Result<bool> Exists(const std::string& path) override;
  Result<std::vector<DirectoryEntry>> List(const std::string& directory) override;
  Status CreateDirectories(const std::string& path) override;
  Result<bool> CreateDirectory(const std::string& path) override;
  Status SyncDirectory(const std::string& path) override;
  Status Rename(const std::string& from, const std::string& to, RenameMode mode) override;
  Status Remove(const std::string& path) override;
  Result<uint64_t> FreeSpace(const std::string& path) override;
  Result<std::unique_ptr<FileLock>> Lock(const std::string& path) override;

  /// What lies behind; files and locks hold on to it.
  struct Disk;

 private:
  std::shared_ptr<Disk> disk_;
};

}  // namespace mergepipe
