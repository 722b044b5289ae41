#include "support/memory_file_system.h"

#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <utility>

namespace mergepipe {
namespace {

struct Node;
using NodePointer = std::shared_ptr<Node>;
using Entries = std::map<std::string, NodePointer>;

// A file or a directory; each content as the process sees it and as a crash leaves it.
struct Node {
  FileKind kind = FileKind::kRegular;
  uint64_t inode = 0;
  int64_t mtime_ns = 0;
  std::string bytes;
  std::string durable_bytes;
  Entries entries;
  Entries durable_entries;

  bool is_directory() const { return kind == FileKind::kDirectory; }
};

// Where a path leads. `parent` is null if the directory that should hold the name is missing, and
// for "/".
struct Place {
  NodePointer parent;
  std::string name;
  NodePointer node;
};

std::vector<std::string> Components(const std::string& path) {
  std::vector<std::string> parts;
  for (std::string rest = AbsolutePath(path); rest != "/"; rest = ParentPath(rest)) {
    parts.push_back(BaseName(rest));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

tl::unexpected<Error> SystemFailure(int error, const std::string& path, std::string_view verb) {
  return tl::unexpected(SystemError(error, path, verb));
}

tl::unexpected<Error> NotThere(const std::string& path) {
  return Fail(ErrorKind::kBadInput, path, "no such file or directory", "check the path");
}

}  // namespace

struct MemoryFileSystem::Disk {
  std::mutex mutex;
  Bytes capacity;
  NodePointer root;
  uint64_t boots = 0;  // files and locks of an earlier boot are dead
  uint64_t nodes = 0;
  int64_t clock_ns = 0;
  std::set<uint64_t> locked_inodes;

  NodePointer NewNode(FileKind kind) {
    auto node = std::make_shared<Node>();
    node->kind = kind;
    node->inode = ++nodes;
    node->mtime_ns = ++clock_ns;
    return node;
  }

  Place Find(const std::string& path) const {
    Place place{nullptr, "/", root};
    for (const std::string& name : Components(path)) {
      const NodePointer directory = place.node;
      if (directory == nullptr || !directory->is_directory()) return {nullptr, name, nullptr};
      const auto entry = directory->entries.find(name);
      place = {directory, name, entry == directory->entries.end() ? nullptr : entry->second};
    }
    return place;
  }

  void Put(const Place& place, NodePointer node) {
    place.parent->mtime_ns = ++clock_ns;
    if (node == nullptr) {
      place.parent->entries.erase(place.name);
    } else {
      place.parent->entries[place.name] = std::move(node);
    }
  }

  uint64_t Used(const Node& node) const {
    uint64_t used = node.bytes.size();
    for (const auto& [name, child] : node.entries) used += Used(*child);
    return used;
  }
  uint64_t Free() const { return capacity.count() - std::min(capacity.count(), Used(*root)); }

  // As `rm -r`: what is below goes first, so a crash can leave an emptied directory.
  void Clear(Node& node) {
    for (const auto& [name, child] : node.entries) Clear(*child);
    node.entries.clear();
  }

  void Crash(const std::function<bool()>& keep) {
    const std::lock_guard lock(mutex);
    ++boots;
    locked_inodes.clear();
    std::set<const Node*> seen;
    Settle(*root, keep, seen);
  }

  void Settle(Node& node, const std::function<bool()>& keep, std::set<const Node*>& seen) {
    if (!seen.insert(&node).second) return;
    SettleContent(node.bytes, node.durable_bytes, keep);
    SettleContent(node.entries, node.durable_entries, keep);
    for (const auto& [name, child] : node.entries) Settle(*child, keep, seen);
  }

  template <typename Content>
  static void SettleContent(Content& content, Content& durable, const std::function<bool()>& keep) {
    if (content == durable) return;
    if (keep()) {
      durable = content;
    } else {
      content = durable;
    }
  }
};

namespace {

using Disk = MemoryFileSystem::Disk;

// A file as opened: it dies with the boot it was opened in.
class OpenFile {
 public:
  OpenFile(std::shared_ptr<Disk> disk, NodePointer node, std::string path)
      : disk_(std::move(disk)),
        node_(std::move(node)),
        path_(std::move(path)),
        boot_(disk_->boots) {}

  // Runs `body(node)` if the file is still open.
  template <typename F>
  Status With(std::string_view verb, F&& body) {
    const std::lock_guard lock(disk_->mutex);
    if (closed_ || boot_ != disk_->boots) return SystemFailure(EBADF, path_, verb);
    return body(*node_);
  }
  void Close() { closed_ = true; }
  Disk& disk() { return *disk_; }
  const std::string& path() const { return path_; }

 private:
  std::shared_ptr<Disk> disk_;
  NodePointer node_;
  std::string path_;
  uint64_t boot_;
  bool closed_ = false;
};

class MemoryReadableFile final : public ReadableFile {
 public:
  MemoryReadableFile(OpenFile file, uint64_t size) : file_(std::move(file)), size_(size) {}

  Status ReadAt(uint64_t offset, std::span<std::byte> out) override {
    return file_.With("read", [&](const Node& node) -> Status {
      const uint64_t end = node.bytes.size();
      if (out.empty()) return {};
      if (offset > end || out.size() > end - offset) {
        return Fail(
            ErrorKind::kBadInput, path(),
            "ends at byte " + std::to_string(end) + ", before the data that it should hold");
      }
      const auto all = std::as_bytes(std::span(node.bytes));
      std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
      return {};
    });
  }
  uint64_t size() const override { return size_; }
  const std::string& path() const override { return file_.path(); }

 private:
  OpenFile file_;
  uint64_t size_;
};

class MemoryWritableFile final : public WritableFile {
 public:
  explicit MemoryWritableFile(OpenFile file) : file_(std::move(file)) {}

  Status WriteAt(uint64_t offset, std::span<const std::byte> bytes) override {
    return file_.With("write", [&](Node& node) -> Status {
      if (bytes.empty()) return {};
      const uint64_t end = offset + bytes.size();
      if (end < offset) return SystemFailure(EFBIG, path(), "write");
      if (end > node.bytes.size()) {
        if (end - node.bytes.size() > file_.disk().Free())
          return SystemFailure(ENOSPC, path(), "write");
        node.bytes.resize(end);
      }
      std::copy(bytes.begin(), bytes.end(),
                std::as_writable_bytes(std::span(node.bytes)).begin() +
                    static_cast<std::ptrdiff_t>(offset));
      node.mtime_ns = ++file_.disk().clock_ns;
      return {};
    });
  }
  Status Sync() override {
    return file_.With("sync", [](Node& node) -> Status {
      node.durable_bytes = node.bytes;
      return {};
    });
  }
  Status Close() override {
    return file_.With("close", [&](Node&) -> Status {
      file_.Close();
      return {};
    });
  }
  const std::string& path() const override { return file_.path(); }

 private:
  OpenFile file_;
};

class MemoryFileLock final : public FileLock {
 public:
  MemoryFileLock(std::shared_ptr<Disk> disk, NodePointer node, std::string path)
      : disk_(std::move(disk)),
        node_(std::move(node)),
        path_(std::move(path)),
        boot_(disk_->boots) {}
  ~MemoryFileLock() override {
    const std::lock_guard lock(disk_->mutex);
    if (boot_ != disk_->boots) return;
    disk_->locked_inodes.erase(node_->inode);
    if (const Place place = disk_->Find(path_); place.node == node_) disk_->Put(place, nullptr);
  }
  MemoryFileLock(const MemoryFileLock&) = delete;
  MemoryFileLock& operator=(const MemoryFileLock&) = delete;

 private:
  std::shared_ptr<Disk> disk_;
  NodePointer node_;
  std::string path_;
  uint64_t boot_;
};

// The file at `path`; kBadInput if there is none.
Result<NodePointer> FindFile(const Disk& disk, const std::string& path) {
  NodePointer node = disk.Find(path).node;
  if (node == nullptr) return NotThere(path);
  if (node->is_directory()) return Fail(ErrorKind::kBadInput, path, "is a directory, not a file");
  return node;
}

Result<NodePointer> FindDirectory(const Disk& disk, const std::string& path) {
  NodePointer node = disk.Find(path).node;
  if (node == nullptr || !node->is_directory()) return NotThere(path);
  return node;
}

bool IsWithin(const std::string& path, const std::string& directory) {
  return (AbsolutePath(path) + "/").starts_with(AbsolutePath(directory) + "/");
}

// What renameat2 would say, or 0.
int RenameError(const Place& from, const Place& to, RenameMode mode) {
  if (from.node == nullptr || from.parent == nullptr || to.parent == nullptr) return ENOENT;
  if (to.node == nullptr) return mode == RenameMode::kExchange ? ENOENT : 0;
  if (mode == RenameMode::kMustNotExist) return EEXIST;
  if (mode == RenameMode::kExchange || to.node == from.node) return 0;
  if (to.node->is_directory() != from.node->is_directory()) {
    return to.node->is_directory() ? EISDIR : ENOTDIR;
  }
  return to.node->entries.empty() ? 0 : ENOTEMPTY;
}

}  // namespace

MemoryFileSystem::MemoryFileSystem(Bytes capacity) : disk_(std::make_shared<Disk>()) {
  disk_->capacity = capacity;
  disk_->root = disk_->NewNode(FileKind::kDirectory);
}

MemoryFileSystem::~MemoryFileSystem() = default;

void MemoryFileSystem::Crash() {
  disk_->Crash([] { return false; });
}

void MemoryFileSystem::Crash(uint64_t seed) {
  std::mt19937_64 random(seed);
  disk_->Crash([&] { return (random() >> 63) != 0; });
}

Result<std::unique_ptr<ReadableFile>> MemoryFileSystem::OpenForReading(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  MERGEPIPE_ASSIGN_OR_RETURN(const NodePointer node, FindFile(*disk_, path));
  return std::make_unique<MemoryReadableFile>(OpenFile(disk_, node, path), node->bytes.size());
}

Result<std::unique_ptr<WritableFile>> MemoryFileSystem::Create(const std::string& path,
                                                               uint64_t size) {
  const std::lock_guard lock(disk_->mutex);
  const Place place = disk_->Find(path);
  if (place.node != nullptr) return SystemFailure(EEXIST, path, "create");
  if (place.parent == nullptr) return SystemFailure(ENOENT, path, "create");
  if (size > disk_->Free()) return SystemFailure(ENOSPC, path, "allocate");
  const NodePointer node = disk_->NewNode(FileKind::kRegular);
  node->bytes.resize(size);
  disk_->Put(place, node);
  return std::make_unique<MemoryWritableFile>(OpenFile(disk_, node, path));
}

Result<std::unique_ptr<WritableFile>> MemoryFileSystem::OpenForWriting(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  MERGEPIPE_ASSIGN_OR_RETURN(const NodePointer node, FindFile(*disk_, path));
  return std::make_unique<MemoryWritableFile>(OpenFile(disk_, node, path));
}

Result<FileInfo> MemoryFileSystem::Stat(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  const NodePointer node = disk_->Find(path).node;
  if (node == nullptr) return NotThere(path);
  return FileInfo{node->kind, node->bytes.size(), node->mtime_ns, node->inode, /*device=*/1};
}

Result<bool> MemoryFileSystem::Exists(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  return disk_->Find(path).node != nullptr;
}

Result<std::vector<DirectoryEntry>> MemoryFileSystem::List(const std::string& directory) {
  const std::lock_guard lock(disk_->mutex);
  MERGEPIPE_ASSIGN_OR_RETURN(const NodePointer node, FindDirectory(*disk_, directory));
  std::vector<DirectoryEntry> entries;
  for (const auto& [name, child] : node->entries) entries.push_back({name, child->kind, false});
  return entries;
}

Status MemoryFileSystem::CreateDirectories(const std::string& path) {
  std::string prefix = "/";
  for (const std::string& name : Components(path)) {
    prefix = JoinPath(prefix, name);
    MERGEPIPE_RETURN_IF_ERROR(CreateDirectory(prefix));
    MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, Stat(prefix));
    if (info.kind != FileKind::kDirectory)
      return SystemFailure(ENOTDIR, path, "make the directory");
  }
  return {};
}

Result<bool> MemoryFileSystem::CreateDirectory(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  const Place place = disk_->Find(path);
  if (place.node != nullptr) return false;
  if (place.parent == nullptr) return SystemFailure(ENOENT, path, "make the directory");
  disk_->Put(place, disk_->NewNode(FileKind::kDirectory));
  return true;
}

Status MemoryFileSystem::SyncDirectory(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  MERGEPIPE_ASSIGN_OR_RETURN(const NodePointer node, FindDirectory(*disk_, path));
  node->durable_entries = node->entries;
  return {};
}

Status MemoryFileSystem::Rename(const std::string& from, const std::string& to, RenameMode mode) {
  const std::lock_guard lock(disk_->mutex);
  const Place source = disk_->Find(from);
  const Place target = disk_->Find(to);
  if (const int error = RenameError(source, target, mode))
    return SystemFailure(error, to, "rename to it");
  if (source.node == target.node) return {};
  if (IsWithin(to, from) || (mode == RenameMode::kExchange && IsWithin(from, to))) {
    return SystemFailure(EINVAL, to, "rename to it");
  }
  disk_->Put(source, mode == RenameMode::kExchange ? target.node : nullptr);
  disk_->Put(target, source.node);
  return {};
}

Status MemoryFileSystem::Remove(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  const Place place = disk_->Find(path);
  if (place.node == nullptr) return {};
  if (place.parent == nullptr) return SystemFailure(EBUSY, path, "remove");
  disk_->Clear(*place.node);
  disk_->Put(place, nullptr);
  return {};
}

Result<uint64_t> MemoryFileSystem::FreeSpace(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  MERGEPIPE_RETURN_IF_ERROR(FindDirectory(*disk_, path));
  return disk_->Free();
}

Result<std::unique_ptr<FileLock>> MemoryFileSystem::Lock(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  const Place place = disk_->Find(path);
  if (place.parent == nullptr) return SystemFailure(ENOENT, path, "open the lock file");
  NodePointer node = place.node;
  if (node == nullptr) disk_->Put(place, node = disk_->NewNode(FileKind::kRegular));
  if (node->is_directory()) return SystemFailure(EISDIR, path, "open the lock file");
  if (!disk_->locked_inodes.insert(node->inode).second) {
    return Fail(ErrorKind::kUsage, path, "another mergepipe job is writing to this target",
                "wait for it, or choose another --out");
  }
  return std::make_unique<MemoryFileLock>(disk_, node, path);
}

}  // namespace mergepipe
