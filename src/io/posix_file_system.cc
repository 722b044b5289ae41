#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <utility>

#include "io/descriptor.h"
#include "io/disk_traits.h"
#include "io/posix_readable_file.h"
#include "io/posix_writable_file.h"
#include "mergepipe/base/checked.h"
#include "mergepipe/io/file.h"
#include "mergepipe/io/publish.h"

namespace mergepipe {
namespace {

FileKind KindOf(mode_t mode) {
  if (S_ISREG(mode)) return FileKind::kRegular;
  if (S_ISDIR(mode)) return FileKind::kDirectory;
  return FileKind::kOther;
}

// Whether a failed stat tells of a dangling link, or of a name that is gone again. Else there may
// be anything, a file that must not be overlooked too.
bool LeadsNowhere(int error) {
  return error == ENOENT || error == ENOTDIR || error == ELOOP || error == EACCES;
}

FileInfo InfoOf(const struct stat& st) {
  FileInfo info;
  info.kind = KindOf(st.st_mode);
  info.size = static_cast<uint64_t>(st.st_size);
  info.mtime_ns = int64_t{st.st_mtim.tv_sec} * 1'000'000'000 + st.st_mtim.tv_nsec;
  info.inode = st.st_ino;
  info.device = st.st_dev;
  return info;
}

// The lock file is removed while the lock is held; whoever then gets a lock on the removed file
// sees that the name no longer leads to it and tries again.
class PosixFileLock final : public FileLock {
 public:
  PosixFileLock(Descriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  ~PosixFileLock() override { ::unlink(path_.c_str()); }
  PosixFileLock(const PosixFileLock&) = delete;
  PosixFileLock& operator=(const PosixFileLock&) = delete;

 private:
  Descriptor fd_;
  std::string path_;
};

class PosixFileSystemImpl final : public FileSystem {
 public:
  Result<std::unique_ptr<ReadableFile>> OpenForReading(const std::string& path) override {
    return OpenPosixForReading(path);
  }
  Result<std::unique_ptr<ReadableFile>> OpenForStreaming(const std::string& path,
                                                         TransferMode mode) override {
    return OpenPosixForStreaming(path, mode);
  }
  Result<std::unique_ptr<WritableFile>> Create(const std::string& path, uint64_t size) override {
    return CreatePosix(path, size);
  }
  Result<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) override {
    return OpenPosixForWriting(path);
  }
  Result<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path,
                                                       TransferMode mode) override {
    return OpenPosixForWriting(path, mode);
  }
  Result<DiskTraits> TraitsOf(const std::string& path) override { return DiskTraitsOf(path); }

  Result<FileInfo> Stat(const std::string& path) override {
    struct stat st {};
    if (::stat(path.c_str(), &st) == 0) return InfoOf(st);
    if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)
      return tl::unexpected(NotThere(path));
    return tl::unexpected(SystemError(errno, path, "look up"));
  }

  Result<bool> Exists(const std::string& path) override {
    struct stat st {};
    if (::lstat(path.c_str(), &st) == 0) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return tl::unexpected(SystemError(errno, path, "look up"));
  }

  Result<std::vector<DirectoryEntry>> List(const std::string& directory) override {
    std::vector<DirectoryEntry> entries;
    std::error_code error;
    std::filesystem::directory_iterator it;
    do {
      it = std::filesystem::directory_iterator(directory, error);
    } while (error == std::errc::interrupted);
    for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
      struct stat st {};
      const bool there = ::stat(it->path().c_str(), &st) == 0;
      if (!there && !LeadsNowhere(errno)) {
        return tl::unexpected(SystemError(errno, it->path().string(), "look up"));
      }
      std::error_code ignored;
      entries.push_back({it->path().filename().string(),
                         there ? KindOf(st.st_mode) : FileKind::kOther, it->is_symlink(ignored)});
    }
    if (error) return tl::unexpected(OpenError(error.value(), directory));
    std::sort(entries.begin(), entries.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return entries;
  }

  Status CreateDirectories(const std::string& path) override {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) return tl::unexpected(SystemError(error.value(), path, "make the directory"));
    return {};
  }

  Result<bool> CreateDirectory(const std::string& path) override {
    if (::mkdir(path.c_str(), 0777) == 0) return true;
    if (errno == EEXIST) return false;
    return tl::unexpected(SystemError(errno, path, "make the directory"));
  }

  Status SyncDirectory(const std::string& path) override {
    const Descriptor fd(OpenRetrying(path, O_RDONLY | O_DIRECTORY));
    if (fd.get() < 0) return tl::unexpected(OpenError(errno, path));
    // EINVAL: a filesystem that has no fsync for directories makes names durable by itself.
    if (SyncRetrying(fd.get()) != 0 && errno != EINVAL) {
      return tl::unexpected(SystemError(errno, path, "sync the directory"));
    }
    return {};
  }

  Status Rename(const std::string& from, const std::string& to, RenameMode mode) override {
    if (mode == RenameMode::kReplace) return PlainRename(from, to);
    const unsigned flags = mode == RenameMode::kExchange ? RENAME_EXCHANGE : RENAME_NOREPLACE;
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0) return {};
    if (errno != EINVAL && errno != ENOSYS)
      return tl::unexpected(SystemError(errno, to, "rename to it"));
    return mode == RenameMode::kExchange ? ExchangeByHand(from, to) : RenameIfAbsent(from, to);
  }

  Status Remove(const std::string& path) override {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error && error.value() != ENOENT)
      return tl::unexpected(SystemError(error.value(), path, "remove"));
    return {};
  }

  Result<uint64_t> FreeSpace(const std::string& path) override {
    struct statvfs st {};
    if (::statvfs(path.c_str(), &st) != 0) {
      return tl::unexpected(SystemError(errno, path, "ask for the free space"));
    }
    return CheckedMultiply(st.f_bavail, st.f_frsize).value_or(UINT64_MAX);
  }

  Result<std::unique_ptr<FileLock>> Lock(const std::string& path) override {
    for (;;) {
      // In a directory where others may write, the name may be a link to anywhere.
      Descriptor fd(OpenRetrying(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0666));
      if (fd.get() < 0) return tl::unexpected(SystemError(errno, path, "open the lock file"));
      struct flock lock {};
      if (WriteLockRetrying(fd.get(), F_OFD_SETLK, lock) != 0) {
        if (errno == EAGAIN || errno == EACCES) {
          return Fail(ErrorKind::kUsage, path, "another mergepipe job is writing to this target",
                      "wait for it, or choose another --out");
        }
        return tl::unexpected(SystemError(errno, path, "lock"));
      }
      struct stat held {};
      struct stat named {};
      const bool looked = ::fstat(fd.get(), &held) == 0 && ::stat(path.c_str(), &named) == 0;
      if (!looked && errno != ENOENT) {
        return tl::unexpected(SystemError(errno, path, "look up the lock file"));
      }
      if (looked && held.st_ino == named.st_ino && held.st_dev == named.st_dev) {
        return std::make_unique<PosixFileLock>(std::move(fd), path);
      }
    }
  }

 private:
  static Status PlainRename(const std::string& from, const std::string& to) {
    if (::rename(from.c_str(), to.c_str()) != 0) {
      return tl::unexpected(SystemError(errno, to, "rename to it"));
    }
    return {};
  }

  Status RenameIfAbsent(const std::string& from, const std::string& to) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool there, Exists(to));
    if (there) return tl::unexpected(SystemError(EEXIST, to, "rename to it"));
    return PlainRename(from, to);
  }

  Status ExchangeByHand(const std::string& from, const std::string& to) {
    const std::string aside = PreviousName(to);
    MERGEPIPE_RETURN_IF_ERROR(PlainRename(to, aside));
    if (const Status moved = PlainRename(from, to); !moved) {
      static_cast<void>(PlainRename(aside, to));  // the first error is the one to report
      return moved;
    }
    return PlainRename(aside, from);
  }
};

}  // namespace

FileSystem& PosixFileSystem() {
  static PosixFileSystemImpl files;
  return files;
}

}  // namespace mergepipe
