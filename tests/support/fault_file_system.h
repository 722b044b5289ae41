#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "mergepipe/io/file.h"

namespace mergepipe {

/// `files`, with every call counted and written down, and one (or one and all after it) failing on
/// demand. Calls on the files opened here count as well: ReadAt, WriteAt, Sync, Close. A call that
/// fails does not reach `files`, which must outlive this and all files from it. Thread-safe.
///
/// A crash-test ladder: for n = 0, 1, 2, ... run anew with FailAt(n, error, kForever) until a run
/// is not hit, and crash the disk below after each.
class FaultFileSystem final : public FileSystem {
 public:
  enum class Repeat {
    kOnce,
    kForever,  ///< the process died there: no later call reaches the disk either
  };

  explicit FaultFileSystem(FileSystem& files);

  /// The call number `operation` (the first one ever is 0) fails with `error`.
  void FailAt(uint64_t operation, Error error, Repeat repeat);
  /// The same with the error that the system would give with this number (errno.h), which names the
  /// path. A WriteAt has written half of its bytes by then.
  void FailAt(uint64_t operation, int number, Repeat repeat);
  /// From here on every call fails with `error`.
  void Stop(const Error& error);
  /// Nothing fails any more.
  void Heal();
  /// Calls so far, failed ones included.
  uint64_t operations() const;
  /// Whether a call has failed on demand.
  bool hit() const;
  /// One line a call: "Rename /a /b", "WriteAt /a/f", in order.
  std::vector<std::string> log() const;

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

  /// Counts a call; the error if it is to fail. For the files opened here.
  Status Count(const std::string& call, const std::string& path);
  /// Counts a WriteAt of `file`; if it is to fail half-way, does half of it.
  Status CountWrite(WritableFile& file, uint64_t offset, std::span<const std::byte> bytes);

 private:
  struct Fault {
    uint64_t operation = 0;
    std::optional<Error> error;
    int number = 0;  ///< if there is no error
    Repeat repeat = Repeat::kOnce;
  };

  Status CountLocked(const std::string& call, const std::string& path);

  FileSystem& files_;
  mutable std::mutex mutex_;
  std::vector<std::string> log_;
  std::optional<Fault> fault_;
  bool hit_ = false;
};

}  // namespace mergepipe
