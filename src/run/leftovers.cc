#include "run/leftovers.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "mergepipe/base/text.h"
#include "mergepipe/io/directory_probe.h"
#include "mergepipe/io/publish.h"
#include "mergepipe/manifest/manifest_codec.h"
#include "mergepipe/manifest/run_folder.h"
#include "mergepipe/plan/plan_codec.h"

namespace mergepipe {
namespace {

using Kind = Leftover::Kind;

constexpr std::string_view kMark = ".mergepipe";
constexpr std::string_view kJournalEnd = ".journal";
constexpr size_t kPlanIdDigits = 16;
constexpr size_t kRunTimestampSize = 16;  // "20260203_101500_"
constexpr uint64_t kMomentSeconds = 60;
constexpr const char* kInUse = "a job is at work on it";

bool IsPlanId(std::string_view text) {
  return text.size() == kPlanIdDigits && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

struct HiddenName {
  Kind kind;
  std::string target;
};

// What a name beside an output says, if it is one of those in StagingPaths.
std::optional<HiddenName> ParseHiddenName(const std::string& name) {
  const size_t mark = name.rfind(kMark);
  if (mark == std::string::npos || mark < 2 || name.front() != '.') return std::nullopt;
  const std::string target = name.substr(1, mark - 1);
  std::string_view end = std::string_view(name).substr(mark + kMark.size());
  if (end == ".lock") return HiddenName{Kind::kLock, target};
  if (end == "-previous") return HiddenName{Kind::kReplaced, target};
  if (!end.starts_with('-')) return std::nullopt;
  end.remove_prefix(1);
  if (IsPlanId(end)) return HiddenName{Kind::kStaging, target};
  if (end.ends_with(kJournalEnd) && IsPlanId(end.substr(0, kPlanIdDigits)) &&
      end.size() == kPlanIdDigits + kJournalEnd.size())
    return HiddenName{Kind::kJournal, target};
  return std::nullopt;
}

bool IsRunId(const std::string& name) {
  static constexpr std::string_view kForm = "dddddddd_dddddd_";
  if (name.size() <= kRunTimestampSize) return false;
  return std::equal(kForm.begin(), kForm.end(), name.begin(), [](char form, char c) {
    return form == 'd' ? c >= '0' && c <= '9' : c == form;
  });
}

uint64_t AgeOf(int64_t mtime_ns) {
  const int64_t now = std::chrono::duration_cast<std::chrono::nanoseconds>(
                          std::chrono::system_clock::now().time_since_epoch())
                          .count();
  return static_cast<uint64_t>(std::max<int64_t>(0, now - mtime_ns) / 1'000'000'000);
}

// What is in a tree: its size, when something in it was last written, and what is not ours.
struct Contents {
  uint64_t bytes = 0;
  int64_t mtime_ns = 0;
  std::string foreign;  // a path

  void Note(const std::string& path) {
    if (foreign.empty()) foreign = path;
  }
};

Status Measure(FileSystem& files, const std::string& directory, Contents& contents) {
  MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, files.Stat(directory));
  contents.mtime_ns = std::max(contents.mtime_ns, info.mtime_ns);
  MERGEPIPE_ASSIGN_OR_RETURN(const auto entries, files.List(directory));
  for (const DirectoryEntry& entry : entries) {
    const std::string path = JoinPath(directory, entry.name);
    // Side files are never hidden, and links are copied as files: see format/side_files.h.
    const bool hidden = entry.name.starts_with('.') && !entry.name.starts_with(kMark);
    if (hidden || entry.is_symlink || entry.kind == FileKind::kOther) {
      contents.Note(path);
    } else if (entry.kind == FileKind::kDirectory) {
      MERGEPIPE_RETURN_IF_ERROR(Measure(files, path, contents));
    } else {
      MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo file, files.Stat(path));
      contents.bytes += file.size;
      contents.mtime_ns = std::max(contents.mtime_ns, file.mtime_ns);
    }
  }
  return {};
}

std::string NotOurs(const std::string& path) {
  return "holds what mergepipe did not make: " + EscapeControl(path);
}

// Only an output of ours is ever replaced, so what was replaced has a manifest.
Result<bool> IsOutput(FileSystem& files, const std::string& directory) {
  const std::string path = JoinPath(directory, kManifestName);
  MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files.Exists(path));
  if (!there) return false;
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(files, path, kMaxRecordBytes));
  return LooksLikeManifest(text);
}

// Whether a file of a run folder is a record of ours; a crash can leave one empty.
Result<bool> IsRecord(FileSystem& files, const std::string& folder, const std::string& name) {
  const std::string path = JoinPath(folder, name);
  if (name == kRunLockName) return true;
  if (name != kPlanName && name != kMetaName) return false;
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(files, path, kMaxRecordBytes));
  if (text.empty()) return true;
  return name == kPlanName ? ParsePlan(text, path).has_value() : ParseMeta(text, path).has_value();
}

Status InspectRunFolder(FileSystem& files, Leftover& leftover) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto entries, files.List(leftover.path));
  for (const DirectoryEntry& entry : entries) {
    bool ours = entry.kind == FileKind::kRegular && !entry.is_symlink;
    if (ours) {
      MERGEPIPE_ASSIGN_OR_RETURN(ours, IsRecord(files, leftover.path, entry.name));
    }
    if (!ours) leftover.kept = NotOurs(JoinPath(leftover.path, entry.name));
  }
  return {};
}

// A run makes its folder, locks it, and writes its plan, in a moment.
Status CheckNotJustMade(FileSystem& files, Leftover& leftover) {
  if (leftover.kind != Kind::kRunFolder || leftover.age_seconds >= kMomentSeconds) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(const bool has_plan, files.Exists(JoinPath(leftover.path, kPlanName)));
  if (!has_plan) leftover.kept = "was made just now";
  return {};
}

Status InspectReplaced(FileSystem& files, Leftover& leftover) {
  MERGEPIPE_ASSIGN_OR_RETURN(leftover.target_exists, files.Exists(leftover.target));
  MERGEPIPE_ASSIGN_OR_RETURN(const bool is_output, IsOutput(files, leftover.path));
  if (!is_output) leftover.kept = "is no output of mergepipe (it has no manifest.json of a merge)";
  return {};
}

// Fills in what its files tell: size, age, and why it must be kept, if so.
Status Inspect(FileSystem& files, Leftover& leftover) {
  leftover.kept.clear();
  if (leftover.kind == Kind::kLock) {
    MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, files.Stat(leftover.path));
    leftover.age_seconds = AgeOf(info.mtime_ns);
    if (info.size > 0) leftover.kept = "is not empty, as a lock of mergepipe is";
    return {};
  }
  Contents contents;
  MERGEPIPE_RETURN_IF_ERROR(Measure(files, leftover.path, contents));
  leftover.bytes = contents.bytes;
  leftover.age_seconds = AgeOf(contents.mtime_ns);
  if (!contents.foreign.empty()) leftover.kept = NotOurs(contents.foreign);
  if (leftover.kind == Kind::kRunFolder) return InspectRunFolder(files, leftover);
  if (leftover.kind == Kind::kReplaced) return InspectReplaced(files, leftover);
  if (leftover.kind == Kind::kStaging) {
    MERGEPIPE_ASSIGN_OR_RETURN(leftover.has_journal,
                               files.Exists(leftover.path + std::string(kJournalEnd)));
  }
  return {};
}

std::string LockOf(const Leftover& leftover) {
  return leftover.kind == Kind::kRunFolder ? JoinPath(leftover.path, kRunLockName)
                                           : StagingPaths::For(leftover.target, "").lock;
}

// What a look tells of it. Trouble with one is no reason not to see the others.
Leftover LookAt(FileSystem& files, Kind kind, std::string path, std::string target,
                const DirectoryEntry& entry) {
  Leftover leftover;
  leftover.kind = kind;
  leftover.path = std::move(path);
  leftover.target = std::move(target);
  const FileKind expected = kind == Kind::kLock ? FileKind::kRegular : FileKind::kDirectory;
  if (entry.is_symlink || entry.kind != expected) {
    leftover.kept = entry.is_symlink ? "is a link" : "is not what mergepipe makes under this name";
    return leftover;
  }
  Status seen = Inspect(files, leftover);
  if (seen) seen = CheckNotJustMade(files, leftover);
  if (!seen) leftover.kept = seen.error().ToString();
  const auto locked = IsLocked(LockOf(leftover));
  if (!locked) {
    leftover.kept = locked.error().ToString();
  } else if (*locked) {
    leftover.kept = kInUse;
  }
  return leftover;
}

// A link may have come since it was found: its target must not be touched.
Result<bool> IsStillThere(FileSystem& files, const Leftover& leftover) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto entries, files.List(ParentPath(leftover.path)));
  return std::ranges::any_of(entries, [&](const DirectoryEntry& entry) {
    return entry.name == BaseName(leftover.path) && !entry.is_symlink;
  });
}

Status RemoveIt(FileSystem& files, const Leftover& leftover) {
  MERGEPIPE_RETURN_IF_ERROR(files.Remove(leftover.path));
  return files.SyncDirectory(ParentPath(leftover.path));
}

Status SettleLocked(FileSystem& files, Leftover& leftover, std::unique_ptr<FileLock> lock) {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool there, IsStillThere(files, leftover));
  if (!there) {
    leftover.kept = "is no longer there, or a link now";
    return {};
  }
  const uint64_t age_seconds = leftover.age_seconds;
  MERGEPIPE_RETURN_IF_ERROR(Inspect(files, leftover));
  leftover.age_seconds = age_seconds;  // the lock in a run folder has just been made
  if (!leftover.kept.empty()) return {};
  switch (leftover.kind) {
    case Kind::kLock: break;  // it goes with the lock
    case Kind::kReplaced:
      MERGEPIPE_RETURN_IF_ERROR(SettleExchange(files, StagingPaths::For(leftover.target, "")));
      break;
    case Kind::kRunFolder:
      // Its lock lies in it, and NFS keeps the name of an open file. No run takes over a folder.
      lock.reset();
      MERGEPIPE_RETURN_IF_ERROR(RemoveIt(files, leftover));
      break;
    case Kind::kStaging:
    case Kind::kJournal: MERGEPIPE_RETURN_IF_ERROR(RemoveIt(files, leftover)); break;
  }
  leftover.settled = true;
  return {};
}

}  // namespace

Result<std::vector<Leftover>> FindLeftoversIn(FileSystem& files, const std::string& directory) {
  std::vector<Leftover> found;
  const std::string absolute = AbsolutePath(directory);
  MERGEPIPE_ASSIGN_OR_RETURN(const auto entries, files.List(absolute));
  for (const DirectoryEntry& entry : entries) {
    const auto name = ParseHiddenName(entry.name);
    if (!name) continue;
    Leftover leftover = LookAt(files, name->kind, JoinPath(absolute, entry.name),
                               JoinPath(absolute, name->target), entry);
    // A lock that is held is no leftover; what it protects tells of the job.
    if (leftover.kind == Kind::kLock && leftover.kept == kInUse) continue;
    found.push_back(std::move(leftover));
  }
  return found;
}

Result<std::vector<Leftover>> FindOrphanedRuns(FileSystem& files,
                                               const std::string& runs_directory) {
  std::vector<Leftover> found;
  MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files.Exists(runs_directory));
  if (!there) return found;
  MERGEPIPE_ASSIGN_OR_RETURN(const auto entries, files.List(runs_directory));
  for (const DirectoryEntry& entry : entries) {
    const std::string path = JoinPath(runs_directory, entry.name);
    if (!IsRunId(entry.name) || entry.kind != FileKind::kDirectory || entry.is_symlink) continue;
    MERGEPIPE_ASSIGN_OR_RETURN(const bool finished, files.Exists(JoinPath(path, kManifestName)));
    if (finished) continue;
    found.push_back(LookAt(files, Kind::kRunFolder, path, "", entry));
  }
  return found;
}

void Settle(FileSystem& files, Leftover& leftover) {
  if (!leftover.kept.empty()) return;
  auto lock = files.Lock(LockOf(leftover));
  if (!lock && lock.error().kind() == ErrorKind::kUsage) {
    leftover.kept = kInUse;
    return;
  }
  const Status settled =
      lock ? SettleLocked(files, leftover, std::move(*lock)) : Status(tl::unexpected(lock.error()));
  if (!settled) leftover.failure = settled.error();
}

}  // namespace mergepipe
