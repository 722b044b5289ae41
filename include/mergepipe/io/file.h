#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mergepipe/base/error.h"

/// \file
/// The one interface through which all bytes go. Posix is one implementation; the budget gate is a
/// decorator; tests add a memory and a faulty one. Paths are used as given (relative ones are
/// relative to the working directory). Every error names the path.
namespace mergepipe {

enum class FileKind { kRegular, kDirectory, kOther };

/// What `stat` knows. `mtime_ns`, `inode` and `device` tell whether a file was replaced or
/// rewritten.
struct FileInfo {
  FileKind kind = FileKind::kOther;
  uint64_t size = 0;
  int64_t mtime_ns = 0;
  uint64_t inode = 0;
  uint64_t device = 0;

  bool operator==(const FileInfo&) const = default;
};

/// One name in a directory. `kind` is that of what a symbolic link points to; a dangling link is
/// kOther.
struct DirectoryEntry {
  std::string name;
  FileKind kind = FileKind::kOther;
  bool is_symlink = false;
};

/// Where direct transfers (O_DIRECT) want memory and file offset aligned. A transfer goes direct if
/// its address and its offset leave the same rest by this; the bytes before the first and after the
/// last multiple always go through the page cache.
inline constexpr size_t kDirectAlignment = 4096;

/// How weights are moved: large pieces, each byte once.
enum class TransferMode {
  kAuto,      ///< kDirect where DiskTraits says that it is worth it, else kBuffered
  kBuffered,  ///< through the page cache
  kDirect,    ///< past the page cache; where the filesystem refuses, kBuffered
};

/// What the disk under a path is, as far as transfers care.
struct DiskTraits {
  std::string filesystem;  ///< "ext4" (2 and 3 too), "xfs", "nfs", "lustre"...; else "0x<magic>"
  bool network = false;    ///< other hosts may see it; asking costs a round trip
  bool direct = false;     ///< direct transfers are worth it here, and work
  /// A copy within it need not move the bytes through this machine's memory: a server does it, or
  /// files share blocks.
  bool copies = false;
};

/// A file opened for reading. Thread-safe: ReadAt may be called from several threads.
class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  /// Fills all of `out` from `offset`. Reaching the end of the file before is an error (kBadInput:
  /// the file is shorter than its header says, or was cut since).
  virtual Status ReadAt(uint64_t offset, std::span<std::byte> out) = 0;
  virtual uint64_t size() const = 0;
  virtual const std::string& path() const = 0;
  /// For WritableFile::CopyFrom: the file's descriptor, from which the kernel may copy by itself,
  /// or -1. A decorator that counts or limits reads keeps the -1, as such a copy would go around
  /// it.
  virtual int descriptor() const { return -1; }
};

/// A file opened for writing. Thread-safe for disjoint ranges.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  /// Writes all of `bytes` at `offset`.
  virtual Status WriteAt(uint64_t offset, std::span<const std::byte> bytes) = 0;
  /// Copies `length` bytes of `source` from its offset `from` to the offset `to` here: by sharing
  /// the blocks, or by the server of a network filesystem, where that works, else by ReadAt and
  /// WriteAt through a buffer of 1 MiB. A source that ends before is kBadInput, as in ReadAt.
  virtual Status CopyFrom(ReadableFile& source, uint64_t from, uint64_t to, uint64_t length);
  /// fsync. A failure is final: the kernel may have dropped the pages, so a second call proves
  /// nothing.
  virtual Status Sync() = 0;
  /// Reports errors that only show at close (NFS, quotas). The destructor closes silently.
  virtual Status Close() = 0;
  virtual const std::string& path() const = 0;
};

/// Held until destroyed; the system releases it when the process dies.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

enum class RenameMode {
  kMustNotExist,  ///< fails if the target exists (renameat2 NOREPLACE; checked by hand where it is
                  ///< lacking)
  kExchange,  ///< swaps two existing names (renameat2 EXCHANGE; two renames where it is lacking)
  kReplace,   ///< plain rename
};

/// The operations on names. One implementation is `PosixFileSystem()`. Streaming is a matter of
/// speed: by default it opens as usual, and of the disk nothing is known.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  /// Only regular files open (links are followed); a directory, device or pipe is kBadInput.
  virtual Result<std::unique_ptr<ReadableFile>> OpenForReading(const std::string& path) = 0;
  /// The same for weights that are read once, in large pieces. ReadAt leaves the page cache as it
  /// found it: what was cached is used and stays, what this read brings in goes (where the kernel
  /// does not tell what is cached, as on an overlay, that may go too). No byte outside of the asked
  /// range is transferred to the caller, and of a local disk none outside of its pages is read.
  virtual Result<std::unique_ptr<ReadableFile>> OpenForStreaming(const std::string& path,
                                                                 TransferMode mode);
  /// Makes a new file of `size` bytes (all allocated where the filesystem can, so that a full disk
  /// shows now); it must not exist. Mode 0666 less the umask.
  virtual Result<std::unique_ptr<WritableFile>> Create(const std::string& path, uint64_t size) = 0;
  /// Opens an existing regular file for writing at offsets.
  virtual Result<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) = 0;
  /// The same for weights that are written once, in large pieces, into a file that has its size.
  /// Disjoint ranges may be written by any number of threads and processes of a host at once, also
  /// where they meet within a page. What is buffered goes to the disk early, so that Sync is short,
  /// and leaves the page cache with Sync.
  virtual Result<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path,
                                                               TransferMode mode);

  /// Follows links. kBadInput if there is nothing at `path`.
  virtual Result<FileInfo> Stat(const std::string& path) = 0;
  /// Whether there is anything at `path`, a dangling link included.
  virtual Result<bool> Exists(const std::string& path) = 0;
  /// The names in a directory, sorted, without "." and "..".
  virtual Result<std::vector<DirectoryEntry>> List(const std::string& directory) = 0;
  /// Makes `path` and its missing parents; no error if it is there.
  virtual Status CreateDirectories(const std::string& path) = 0;
  /// Makes the directory `path`; false if there is something at `path` already.
  virtual Result<bool> CreateDirectory(const std::string& path) = 0;
  virtual Status SyncDirectory(const std::string& path) = 0;
  virtual Status Rename(const std::string& from, const std::string& to, RenameMode mode) = 0;
  /// Removes a file or a whole tree; links are removed, not followed. No error if it is not there.
  virtual Status Remove(const std::string& path) = 0;
  /// Bytes that this user may still write on the filesystem of `path` (an existing directory).
  virtual Result<uint64_t> FreeSpace(const std::string& path) = 0;
  /// Of the file or directory at `path`, which must exist.
  virtual Result<DiskTraits> TraitsOf(const std::string& path);
  /// Takes an exclusive lock on `path` (made if absent) that dies with its holder, or fails with
  /// kUsage at once if another process has it.
  virtual Result<std::unique_ptr<FileLock>> Lock(const std::string& path) = 0;
};

/// The real file system; a process-wide object without state.
FileSystem& PosixFileSystem();

/// The whole of a small file. A file over `limit` bytes is kBadInput.
Result<std::string> ReadSmallFile(FileSystem& files, const std::string& path, uint64_t limit);
/// Makes a new file with `text` and syncs it.
Status WriteNewFile(FileSystem& files, const std::string& path, std::string_view text);

/// Makes the directory `path` and its missing parents, each of which has a durable name then.
Status CreateDurableDirectories(FileSystem& files, const std::string& path);

/// "a/b" from "a" and "b".
std::string JoinPath(std::string_view directory, std::string_view name);
/// The last component, trailing slashes ignored: "b" for "a/b/".
std::string BaseName(std::string_view path);
/// All but the last component: "a" for "a/b/", "." for "b".
std::string ParentPath(std::string_view path);
/// Absolute, with "." and ".." resolved by their names only.
std::string AbsolutePath(std::string_view path);

}  // namespace mergepipe
