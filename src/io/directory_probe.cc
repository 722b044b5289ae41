#include "mergepipe/io/directory_probe.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "io/descriptor.h"
#include "mergepipe/io/file.h"

namespace mergepipe {
namespace {

// A directory of its own for the trials; removed with what is in it.
class Trial {
 public:
  static Result<Trial> Make(const std::string& directory) {
    std::string path = JoinPath(directory, ".mergepipe-doctor-XXXXXX");
    if (::mkdtemp(path.data()) == nullptr)
      return tl::unexpected(SystemError(errno, directory, "make a directory in it"));
    return Trial(std::move(path));
  }
  ~Trial() {
    if (!path_.empty()) static_cast<void>(PosixFileSystem().Remove(path_));
  }
  Trial(Trial&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  Trial& operator=(Trial&&) = delete;

  std::string Path(const char* name) const { return JoinPath(path_, name); }
  const std::string& path() const { return path_; }

 private:
  explicit Trial(std::string path) : path_(std::move(path)) {}

  std::string path_;
};

bool Lock(int fd) {
  struct flock lock {};
  return WriteLockRetrying(fd, F_OFD_SETLK, lock) == 0;
}

bool TryLocks(const Trial& trial) {
  const std::string path = trial.Path("lock");
  const Descriptor first(OpenRetrying(path, O_RDWR | O_CREAT, 0600));
  const Descriptor second(OpenRetrying(path, O_RDWR));
  return first.get() >= 0 && second.get() >= 0 && Lock(first.get()) && !Lock(second.get());
}

bool Rename(const std::string& from, const std::string& to, unsigned flags) {
  return ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0;
}

bool SyncsDirectory(const std::string& path) {
  const Descriptor fd(OpenRetrying(path, O_RDONLY | O_DIRECTORY));
  return fd.get() >= 0 && SyncRetrying(fd.get()) == 0;
}

}  // namespace

Result<DirectoryAbilities> ProbeDirectory(const std::string& directory) {
  MERGEPIPE_ASSIGN_OR_RETURN(const Trial trial, Trial::Make(directory));
  const std::string a = trial.Path("a");
  const std::string b = trial.Path("b");
  if (::mkdir(a.c_str(), 0700) != 0 || ::mkdir(b.c_str(), 0700) != 0)
    return tl::unexpected(SystemError(errno, directory, "make a directory in it"));
  DirectoryAbilities abilities;
  abilities.locks = TryLocks(trial);
  abilities.spares_targets = !Rename(a, b, RENAME_NOREPLACE) && errno == EEXIST;
  abilities.exchanges_names = Rename(a, b, RENAME_EXCHANGE);
  abilities.syncs = SyncsDirectory(trial.path());
  return abilities;
}

Result<bool> IsLocked(const std::string& path) {
  const Descriptor fd(OpenRetrying(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW));
  if (fd.get() < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return tl::unexpected(OpenError(errno, path));
  }
  struct flock lock {};
  if (WriteLockRetrying(fd.get(), F_OFD_GETLK, lock) != 0)
    return tl::unexpected(SystemError(errno, path, "ask for its lock"));
  return lock.l_type != F_UNLCK;
}

}  // namespace mergepipe
