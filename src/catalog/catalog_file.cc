#include "catalog/catalog_file.h"

#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <random>
#include <utility>

#include "catalog/schema.h"
#include "mergepipe/base/text.h"
#include "mergepipe/format/model.h"

namespace mergepipe {
namespace {

/// The file's name for sqlite3, to which ":memory:", "file:..." and "" mean something else.
std::string PlainName(const std::string& path) {
  std::error_code error;
  const auto absolute = std::filesystem::absolute(path, error);
  return error ? "./" + path : absolute.string();
}

/// `error`, which concerns a neighbour of the catalog, as one of the catalog.
Error AsErrorOf(const std::string& path, const Error& error) {
  const Problem& problem = error.problems().front();
  return Error(error.kind(), path, problem.what, problem.remedy);
}

Status CheckDirectory(const std::string& path) {
  const std::string directory = ParentPath(path);
  const auto info = PosixFileSystem().Stat(directory);
  if (info && info->kind == FileKind::kDirectory) return {};
  if (info) {
    return Fail(ErrorKind::kBadInput, path, Quote(directory) + " is not a directory",
                "choose another --db");
  }
  if (info.error().kind() != ErrorKind::kBadInput) return Fail(AsErrorOf(path, info.error()));
  return Fail(ErrorKind::kBadInput, path, "its directory " + Quote(directory) + " does not exist",
              "create it: mkdir -p " + Quote(directory));
}

/// sqlite3 would play a journal left by a lost catalog back into the new one.
Status CheckNoOrphanJournal(const std::string& path) {
  for (const char* suffix : {"-journal", "-wal"}) {
    const std::string journal = path + suffix;
    MERGEPIPE_ASSIGN_OR_RETURN(const bool found, PosixFileSystem().Exists(journal));
    if (!found) continue;
    // The catalog is looked for last: another process may just have made it and be writing.
    MERGEPIPE_ASSIGN_OR_RETURN(const bool has_catalog, PosixFileSystem().Exists(path));
    if (has_catalog) continue;
    return Fail(ErrorKind::kBadInput, path,
                "there is a journal " + Quote(journal) + " without its catalog",
                "put the catalog back, or move the journal away");
  }
  return {};
}

/// A new empty file beside the catalog, with the journal that sqlite3 may leave; removed when done.
class TemporaryFile {
 public:
  static Result<TemporaryFile> Make(const std::string& path) {
    // Random too: processes on several hosts of a shared filesystem may have the same id.
    std::string name =
        path + ".new-" + std::to_string(getpid()) + "-" + std::to_string(std::random_device()());
    const auto file = PosixFileSystem().Create(name, 0);
    if (!file) return Fail(AsErrorOf(path, file.error()));
    return TemporaryFile(std::move(name));
  }
  ~TemporaryFile() {
    if (name_.empty()) return;
    unlink(name_.c_str());
    unlink((name_ + "-journal").c_str());
  }
  TemporaryFile(TemporaryFile&& other) noexcept : name_(std::exchange(other.name_, {})) {}
  TemporaryFile& operator=(TemporaryFile&&) = delete;

  const std::string& name() const { return name_; }

 private:
  explicit TemporaryFile(std::string name) : name_(std::move(name)) {}

  std::string name_;
};

Status BuildNewCatalog(const std::string& file, const std::string& subject,
                       std::chrono::milliseconds busy_timeout) {
  MERGEPIPE_ASSIGN_OR_RETURN(auto connection,
                             Connection::Open(PlainName(file), subject, busy_timeout));
  MERGEPIPE_RETURN_IF_ERROR(
      connection->Execute("PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL;"));
  return CreateSchema(*connection);
}

/// Gives `file` the name `path` too if nothing has it yet. A link, because NFS has no rename that
/// spares its target: two jobs that start at once would lose what the first one registered.
Status PublishUnlessTaken(const std::string& file, const std::string& path) {
  if (link(file.c_str(), path.c_str()) == 0 || errno == EEXIST) return {};
  if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS) {
    return Fail(SystemError(errno, path, "create"));
  }
  // A filesystem without hard links.
  const Status renamed = PosixFileSystem().Rename(file, path, RenameMode::kMustNotExist);
  if (renamed) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(const bool taken, PosixFileSystem().Exists(path));
  if (taken) return {};
  return Fail(renamed.error());
}

Status SetUp(Connection& connection) {
  MERGEPIPE_RETURN_IF_ERROR(connection.Execute(
      "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;"
      "PRAGMA mmap_size = 0; PRAGMA synchronous = FULL;"));
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string mode,
                             connection.QueryText("PRAGMA journal_mode = DELETE"));
  if (mode == "delete") return {};
  return Fail(ErrorKind::kIo, connection.subject(),
              "is in journal mode '" + mode + "', which cannot be changed now",
              "close the other programs that use it, and make it writable");
}

/// sqlite3 opens what has the name of a journal, and would wait for a pipe's writer for ever.
Status CheckNeighbours(const std::string& path) {
  for (const char* suffix : {"-journal", "-wal", "-shm"}) {
    const std::string neighbour = path + suffix;
    const auto info = PosixFileSystem().Stat(neighbour);
    if (!info || info->kind == FileKind::kRegular) continue;
    return Fail(ErrorKind::kBadInput, path,
                "what has the name of its journal, " + Quote(neighbour) + ", is not a regular file",
                "move it away, or choose another --db");
  }
  return {};
}

}  // namespace

Result<bool> CatalogFileExists(const std::string& path) {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool exists, PosixFileSystem().Exists(path));
  if (!exists) return false;
  const auto info = PosixFileSystem().Stat(path);
  if (!info && info.error().kind() != ErrorKind::kBadInput) return Fail(info.error());
  if (!info) {
    return Fail(ErrorKind::kBadInput, path, "is a symbolic link to a file that does not exist",
                "remove the link or choose another --db");
  }
  if (info->kind == FileKind::kDirectory) {
    return Fail(ErrorKind::kBadInput, path, "is a directory, not a catalog file",
                "choose another --db");
  }
  if (info->kind != FileKind::kRegular) {
    return Fail(ErrorKind::kBadInput, path, "is not a regular file", "choose another --db");
  }
  if (info->size == 0) {
    return Fail(ErrorKind::kBadInput, path, "is an empty file, not a catalog",
                "remove it, and a new catalog can be made there");
  }
  MERGEPIPE_RETURN_IF_ERROR(CheckNeighbours(path));
  return true;
}

Status CreateCatalogFile(const std::string& path, std::chrono::milliseconds busy_timeout) {
  MERGEPIPE_RETURN_IF_ERROR(CheckDirectory(path));
  MERGEPIPE_RETURN_IF_ERROR(CheckNoOrphanJournal(path));
  MERGEPIPE_ASSIGN_OR_RETURN(const TemporaryFile file, TemporaryFile::Make(path));
  MERGEPIPE_RETURN_IF_ERROR(BuildNewCatalog(file.name(), path, busy_timeout));
  MERGEPIPE_RETURN_IF_ERROR(PublishUnlessTaken(file.name(), path));
  const Status synced = PosixFileSystem().SyncDirectory(ParentPath(path));
  if (!synced) return Fail(AsErrorOf(path, synced.error()));
  return {};
}

Result<std::unique_ptr<Connection>> OpenCatalogFile(const std::string& path,
                                                    std::chrono::milliseconds busy_timeout) {
  MERGEPIPE_ASSIGN_OR_RETURN(auto connection,
                             Connection::Open(PlainName(path), path, busy_timeout));
  MERGEPIPE_RETURN_IF_ERROR(CheckIsCatalog(*connection));
  MERGEPIPE_RETURN_IF_ERROR(SetUp(*connection));
  MERGEPIPE_RETURN_IF_ERROR(MigrateSchema(*connection));
  return connection;
}

Result<std::unique_ptr<Connection>> OpenDamagedFile(const std::string& path,
                                                    std::chrono::milliseconds busy_timeout) {
  MERGEPIPE_ASSIGN_OR_RETURN(auto connection,
                             Connection::Open(PlainName(path), path, busy_timeout));
  connection->ReadDespiteDamage();
  MERGEPIPE_RETURN_IF_ERROR(
      connection->Execute("PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;"));
  return connection;
}

}  // namespace mergepipe
