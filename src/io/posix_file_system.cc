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

#include "mergepipe/base/checked.h"
#include "mergepipe/io/file.h"
#include "mergepipe/io/publish.h"

namespace mergepipe {
namespace {

// pread and pwrite transfer at most 0x7ffff000 bytes in one call.
constexpr size_t kMaxTransfer = size_t{1} << 30;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

int OpenRetrying(const std::string& path, int flags, mode_t mode = 0) {
  int fd = -1;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

FileKind KindOf(mode_t mode) {
  if (S_ISREG(mode)) return FileKind::kRegular;
  if (S_ISDIR(mode)) return FileKind::kDirectory;
  return FileKind::kOther;
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

Error NotThere(const std::string& path) {
  return Error(ErrorKind::kBadInput, path, "no such file or directory", "check the path");
}

class PosixReadableFile final : public ReadableFile {
 public:
  PosixReadableFile(Descriptor fd, std::string path, uint64_t size)
      : fd_(std::move(fd)), path_(std::move(path)), size_(size) {}

  Status ReadAt(uint64_t offset, std::span<std::byte> out) override {
    while (!out.empty()) {
      const ssize_t got = ::pread(fd_.get(), out.data(), std::min(out.size(), kMaxTransfer),
                                  static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return tl::unexpected(SystemError(errno, path_, "read"));
      if (got == 0) {
        return Fail(
            ErrorKind::kBadInput, path_,
            "ends at byte " + std::to_string(offset) + ", before the data that it should hold",
            "the file is truncated or was changed; fetch it again");
      }
      offset += static_cast<uint64_t>(got);
      out = out.subspan(static_cast<size_t>(got));
    }
    return {};
  }

  uint64_t size() const override { return size_; }
  const std::string& path() const override { return path_; }

 private:
  Descriptor fd_;
  std::string path_;
  uint64_t size_;
};

class PosixWritableFile final : public WritableFile {
 public:
  PosixWritableFile(Descriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  Status WriteAt(uint64_t offset, std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t put = ::pwrite(fd_.get(), bytes.data(), std::min(bytes.size(), kMaxTransfer),
                                   static_cast<off_t>(offset));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return tl::unexpected(SystemError(errno, path_, "write"));
      offset += static_cast<uint64_t>(put);
      bytes = bytes.subspan(static_cast<size_t>(put));
    }
    return {};
  }

  Status Sync() override {
    if (::fsync(fd_.get()) != 0) return tl::unexpected(SystemError(errno, path_, "sync"));
    return {};
  }

  Status Close() override {
    const int fd = fd_.Release();
    if (fd >= 0 && ::close(fd) != 0 && errno != EINTR) {
      return tl::unexpected(SystemError(errno, path_, "close"));
    }
    return {};
  }

  const std::string& path() const override { return path_; }

 private:
  Descriptor fd_;
  std::string path_;
};

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
    // O_NONBLOCK: opening a pipe must not wait for its writer.
    Descriptor fd(OpenRetrying(path, O_RDONLY | O_NONBLOCK));
    if (fd.get() < 0) return tl::unexpected(OpenError(errno, path));
    struct stat st {};
    MERGEPIPE_RETURN_IF_ERROR(CheckRegular(fd.get(), path, &st));
    return std::make_unique<PosixReadableFile>(std::move(fd), path,
                                               static_cast<uint64_t>(st.st_size));
  }

  Result<std::unique_ptr<WritableFile>> Create(const std::string& path, uint64_t size) override {
    Descriptor fd(OpenRetrying(path, O_RDWR | O_CREAT | O_EXCL, 0666));
    if (fd.get() < 0) return tl::unexpected(SystemError(errno, path, "create"));
    if (Status status = Allocate(fd.get(), path, size); !status) {
      ::unlink(path.c_str());
      return tl::unexpected(status.error());
    }
    return std::make_unique<PosixWritableFile>(std::move(fd), path);
  }

  Result<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) override {
    Descriptor fd(OpenRetrying(path, O_WRONLY | O_NONBLOCK));
    if (fd.get() < 0) return tl::unexpected(OpenError(errno, path));
    struct stat st {};
    MERGEPIPE_RETURN_IF_ERROR(CheckRegular(fd.get(), path, &st));
    return std::make_unique<PosixWritableFile>(std::move(fd), path);
  }

  Result<FileInfo> Stat(const std::string& path) override {
    struct stat st {};
    if (::stat(path.c_str(), &st) == 0) return InfoOf(st);
    if (errno == ENOENT || errno == ENOTDIR) return tl::unexpected(NotThere(path));
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
    std::filesystem::directory_iterator it(directory, error);
    for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
      struct stat st {};
      const bool there = ::stat(it->path().c_str(), &st) == 0;
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
    if (::fsync(fd.get()) != 0 && errno != EINVAL) {
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
      Descriptor fd(OpenRetrying(path, O_RDWR | O_CREAT, 0666));
      if (fd.get() < 0) return tl::unexpected(SystemError(errno, path, "open the lock file"));
      // Open-file-description locks: released when the process dies, and they work over NFS.
      struct flock lock {};
      lock.l_type = F_WRLCK;
      lock.l_whence = SEEK_SET;
      if (::fcntl(fd.get(), F_OFD_SETLK, &lock) != 0) {
        if (errno == EAGAIN || errno == EACCES) {
          return Fail(ErrorKind::kUsage, path, "another mergepipe job is writing to this target",
                      "wait for it, or choose another --out");
        }
        return tl::unexpected(SystemError(errno, path, "lock"));
      }
      struct stat held {};
      struct stat named {};
      if (::fstat(fd.get(), &held) == 0 && ::stat(path.c_str(), &named) == 0 &&
          held.st_ino == named.st_ino && held.st_dev == named.st_dev) {
        return std::make_unique<PosixFileLock>(std::move(fd), path);
      }
    }
  }

 private:
  static Error OpenError(int error, const std::string& path) {
    if (error == ENOENT || error == ENOTDIR || error == ELOOP) return NotThere(path);
    if (error == ENXIO || error == EISDIR) {
      return Error(ErrorKind::kBadInput, path, "is not a regular file", "check the path");
    }
    return SystemError(error, path, "open");
  }

  static Status CheckRegular(int fd, const std::string& path, struct stat* st) {
    if (::fstat(fd, st) != 0) return tl::unexpected(SystemError(errno, path, "look up"));
    if (!S_ISREG(st->st_mode)) {
      return Fail(ErrorKind::kBadInput, path,
                  S_ISDIR(st->st_mode) ? "is a directory, not a file" : "is not a regular file",
                  "give a checkpoint directory or a weight file");
    }
    return {};
  }

  static Status Allocate(int fd, const std::string& path, uint64_t size) {
    const auto length = Narrow<off_t>(size);
    if (!length) return Fail(ErrorKind::kBadInput, path, "would be larger than a file can be");
    if (*length == 0) return {};
    int failed = 0;
    do {
      failed = ::fallocate(fd, 0, 0, *length);
    } while (failed != 0 && errno == EINTR);
    if (failed == 0) return {};
    if (errno == EOPNOTSUPP || errno == ENOSYS) {
      if (::ftruncate(fd, *length) == 0) return {};
    }
    return tl::unexpected(SystemError(errno, path, "allocate " + std::to_string(size) + " bytes"));
  }

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
