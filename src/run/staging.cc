#include "run/staging.h"

#include <algorithm>
#include <charconv>

#include "mergepipe/base/text.h"
#include "mergepipe/manifest/manifest_codec.h"
#include "mergepipe/manifest/run_folder.h"
#include "mergepipe/run/models.h"

namespace mergepipe {
namespace {

// Side files, index and records come on top of the weights.
constexpr uint64_t kSpaceForTheRest = 16 * kMiB;

// In a journal directory, once the staging directory is complete: the identity of both.
constexpr const char* kPreparedName = "prepared";
constexpr uint64_t kMaxPreparedBytes = 1024;

Status CheckSpaceOf(FileSystem& files, const std::string& parent, const OutputLayout& layout,
                    uint64_t reclaimed) {
  uint64_t needed = kSpaceForTheRest;
  for (const OutputFile& file : layout.files) needed += file.size;
  MERGEPIPE_ASSIGN_OR_RETURN(uint64_t free, files.FreeSpace(parent));
  free += reclaimed;
  if (needed <= free) return {};
  return Fail(ErrorKind::kNoSpace, parent,
              "the output needs " + FormatBytes(Bytes(needed)) + ", the disk has " +
                  FormatBytes(Bytes(free)),
              "free some space, or choose an --out on another disk");
}

Status MakeWeightFile(FileSystem& files, const std::string& path, const OutputFile& file) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto out, files.Create(path, file.size));
  MERGEPIPE_RETURN_IF_ERROR(out->WriteAt(0, std::as_bytes(std::span(file.header))));
  MERGEPIPE_RETURN_IF_ERROR(out->Sync());
  return out->Close();
}

// Of the files in the staging directories of earlier attempts at the target, whatever their plan.
Result<uint64_t> StagedBytes(FileSystem& files, const std::string& target) {
  const std::string parent = ParentPath(target);
  const std::string prefix = BaseName(StagingPaths::For(target, "").staging);
  uint64_t bytes = 0;
  MERGEPIPE_ASSIGN_OR_RETURN(const auto names, files.List(parent));
  for (const DirectoryEntry& entry : names) {
    if (!entry.name.starts_with(prefix) || entry.kind != FileKind::kDirectory || entry.is_symlink)
      continue;
    const std::string directory = JoinPath(parent, entry.name);
    MERGEPIPE_ASSIGN_OR_RETURN(const auto staged, files.List(directory));
    for (const DirectoryEntry& file : staged) {
      if (file.kind != FileKind::kRegular) continue;
      MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, files.Stat(JoinPath(directory, file.name)));
      bytes += info.size;
    }
  }
  return bytes;
}

// "<attempt>.<rank>"; nothing for another name.
std::optional<int> AttemptOf(const std::string& journal) {
  int attempt = 0;
  const auto parsed = std::from_chars(journal.data(), journal.data() + journal.size(), attempt);
  const bool fits = parsed.ec == std::errc() && attempt > 0 &&
                    parsed.ptr != journal.data() + journal.size() && *parsed.ptr == '.';
  return fits ? std::optional(attempt) : std::nullopt;
}

bool SameDirectory(const FileInfo& a, const FileInfo& b) {
  return a.inode == b.inode && a.device == b.device;
}

// Whether `path` is `directory` or lies in it, whatever links their spellings go through.
Result<bool> IsWithin(FileSystem& files, std::string path, const std::string& directory) {
  const auto wanted = files.Stat(directory);
  if (!wanted && wanted.error().kind() != ErrorKind::kBadInput) return Fail(wanted.error());
  for (;;) {
    if (path == directory) return true;
    MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files.Exists(path));
    if (there && wanted) {
      MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, files.Stat(path));
      if (SameDirectory(info, *wanted)) return true;
    }
    std::string parent = ParentPath(path);
    if (parent == path) return false;
    path = std::move(parent);
  }
}

Status CheckApart(FileSystem& files, const std::string& out,
                  const std::vector<std::string>& inputs) {
  for (const std::string& input : inputs) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool holds, IsWithin(files, input, out));
    MERGEPIPE_ASSIGN_OR_RETURN(const bool lies_in, IsWithin(files, out, input));
    if (holds || lies_in) {
      return Fail(ErrorKind::kUsage, "--out",
                  Quote(out) + " is, holds or lies in an input (" + input + ")",
                  "choose another directory");
    }
  }
  return {};
}

// Only what has a manifest of ours is replaced.
Status CheckOurs(FileSystem& files, const std::string& out) {
  const std::string path = JoinPath(out, kManifestName);
  MERGEPIPE_ASSIGN_OR_RETURN(const bool has_manifest, files.Exists(path));
  if (has_manifest) {
    MERGEPIPE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(files, path, kMaxRecordBytes));
    if (LooksLikeManifest(text)) return {};
  }
  return Fail(
      ErrorKind::kUsage, "--out",
      Quote(out) + " was not made by mergepipe (it has no manifest.json of a merge)",
      "--overwrite replaces earlier outputs only; remove it yourself, or choose another directory");
}

}  // namespace

Status Staging::CheckTarget(FileSystem& files, const MergeTarget& target,
                            const std::vector<std::string>& inputs) {
  const std::string path = AbsolutePath(target.directory);
  MERGEPIPE_RETURN_IF_ERROR(CheckApart(files, path, inputs));
  MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files.Exists(path));
  if (there && !target.overwrite) {
    return Fail(ErrorKind::kUsage, "--out", Quote(target.directory) + " exists already",
                "choose another directory, or pass --overwrite");
  }
  if (there) MERGEPIPE_RETURN_IF_ERROR(CheckOurs(files, path));
  const auto parent = files.Stat(ParentPath(path));
  if (!parent && parent.error().kind() != ErrorKind::kBadInput) return Fail(parent.error());
  if (!parent || parent->kind != FileKind::kDirectory) {
    return Fail(ErrorKind::kUsage, "--out",
                "the directory " + Quote(ParentPath(path)) + " does not exist", "create it first");
  }
  return {};
}

Status Staging::CheckOptions(FileSystem& files, const MergeTarget& target) {
  if (!target.model_id.empty())
    MERGEPIPE_RETURN_IF_ERROR(CheckModelId(target.model_id, "--model-id"));
  MERGEPIPE_ASSIGN_OR_RETURN(
      const bool runs_inside,
      IsWithin(files, AbsolutePath(target.runs_directory), AbsolutePath(target.directory)));
  if (runs_inside) {
    return Fail(ErrorKind::kUsage, "--runs-dir", Quote(target.runs_directory) + " lies in --out",
                "choose a directory outside of the output");
  }
  return CheckTarget(files, target, {});
}

Status Staging::CheckSpace(FileSystem& files, const MergeTarget& target,
                           const OutputLayout& layout) {
  const std::string path = AbsolutePath(target.directory);
  MERGEPIPE_ASSIGN_OR_RETURN(const uint64_t staged, StagedBytes(files, path));
  return CheckSpaceOf(files, ParentPath(path), layout, staged);
}

Result<std::unique_ptr<Staging>> Staging::Create(FileSystem& files, const MergeTarget& target,
                                                 const StagedOutput& output) {
  std::unique_ptr<Staging> staging(
      new Staging(files, StagingPaths::For(target.directory, output.plan_id)));
  MERGEPIPE_RETURN_IF_ERROR(staging->Start(target, output));
  return staging;
}

Status Staging::Start(const MergeTarget& target, const StagedOutput& output) {
  MERGEPIPE_ASSIGN_OR_RETURN(lock_, files_.Lock(paths_.lock));
  MERGEPIPE_RETURN_IF_ERROR(SettleExchange(files_, paths_));
  if (target.resume) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool goes_on, GoOn(output));
    if (goes_on) return {};
  }
  return MakeNew(output);
}

// The journals' directory is complete last, and goes first: while it says that it belongs to the
// staging directory, it does.
Status Staging::MakeNew(const StagedOutput& output) {
  // Left by a killed attempt: its lock is free, so nobody is writing there.
  MERGEPIPE_RETURN_IF_ERROR(files_.Remove(paths_.journal));
  MERGEPIPE_RETURN_IF_ERROR(files_.Remove(paths_.staging));
  MERGEPIPE_RETURN_IF_ERROR(CheckSpaceOf(files_, paths_.parent, output.layout, 0));
  created_ = true;
  MERGEPIPE_RETURN_IF_ERROR(files_.CreateDirectories(paths_.staging));
  for (const OutputFile& file : output.layout.files)
    MERGEPIPE_RETURN_IF_ERROR(MakeWeightFile(files_, JoinPath(paths_.staging, file.name), file));
  MERGEPIPE_RETURN_IF_ERROR(files_.SyncDirectory(paths_.staging));
  MERGEPIPE_RETURN_IF_ERROR(FindIdentity(output));
  MERGEPIPE_RETURN_IF_ERROR(files_.CreateDirectories(paths_.journal));
  MERGEPIPE_RETURN_IF_ERROR(
      WriteNewFile(files_, JoinPath(paths_.journal, kPreparedName), identity_.ToHex()));
  MERGEPIPE_RETURN_IF_ERROR(files_.SyncDirectory(paths_.journal));
  return files_.SyncDirectory(paths_.parent);
}

// False if there is nothing that another attempt at this very output has left whole.
Result<bool> Staging::GoOn(const StagedOutput& output) {
  // A link in their place is not ours: it would lead the writing elsewhere.
  MERGEPIPE_ASSIGN_OR_RETURN(const auto beside, files_.List(paths_.parent));
  for (const std::string& path : {paths_.staging, paths_.journal}) {
    const bool there = std::ranges::any_of(beside, [&](const DirectoryEntry& entry) {
      return entry.name == BaseName(path) && entry.kind == FileKind::kDirectory &&
             !entry.is_symlink;
    });
    if (!there) return false;
  }
  MERGEPIPE_RETURN_IF_ERROR(FindIdentity(output));
  MERGEPIPE_ASSIGN_OR_RETURN(const bool prepared, IsPrepared(output.layout));
  if (!prepared) return false;
  created_ = kept_ = true;
  MERGEPIPE_RETURN_IF_ERROR(KeepOnlyWeights(output.layout));
  MERGEPIPE_RETURN_IF_ERROR(ReadJournals(earlier_));
  return true;
}

// After an exchange the staging name may hold the old output: the inode tells.
Status Staging::FindIdentity(const StagedOutput& output) {
  MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, files_.Stat(paths_.staging));
  Hasher hasher;
  hasher.Update(output.identity);
  hasher.Update(info.inode);
  for (const OutputFile& file : output.layout.files) {
    hasher.Update(file.name);
    hasher.Update(file.size);
    hasher.Update(HashText(file.header));
  }
  identity_ = hasher.Finish();
  return {};
}

Result<bool> Staging::IsPrepared(const OutputLayout& layout) {
  const std::string path = JoinPath(paths_.journal, kPreparedName);
  MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files_.Exists(path));
  if (!there) return false;
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string text,
                             ReadSmallFile(files_, path, kMaxPreparedBytes));
  if (text != identity_.ToHex()) return false;
  MERGEPIPE_ASSIGN_OR_RETURN(const auto entries, files_.List(paths_.staging));
  for (const OutputFile& file : layout.files) {
    const bool linked = std::ranges::any_of(entries, [&](const DirectoryEntry& entry) {
      return entry.name == file.name && entry.is_symlink;
    });
    const auto info = files_.Stat(JoinPath(paths_.staging, file.name));
    if (linked || !info || info->kind != FileKind::kRegular || info->size != file.size)
      return false;
  }
  return true;
}

// Side files are small, and made anew.
Status Staging::KeepOnlyWeights(const OutputLayout& layout) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto entries, files_.List(paths_.staging));
  for (const DirectoryEntry& entry : entries) {
    const bool weights = std::ranges::any_of(
        layout.files, [&](const OutputFile& file) { return file.name == entry.name; });
    if (!weights) MERGEPIPE_RETURN_IF_ERROR(files_.Remove(JoinPath(paths_.staging, entry.name)));
  }
  return {};
}

Status Staging::ReadJournals(JournalContents& contents) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto entries, files_.List(paths_.journal));
  for (const DirectoryEntry& entry : entries) {
    const auto attempt = AttemptOf(entry.name);
    if (!attempt || entry.kind != FileKind::kRegular) continue;
    attempt_ = std::max(attempt_, *attempt + 1);
    MERGEPIPE_RETURN_IF_ERROR(
        ReadJournal(files_, JoinPath(paths_.journal, entry.name), identity_, contents));
  }
  return {};
}

bool Staging::EndAttempt(ErrorKind error) {
  if (published() || !created_) return false;
  JournalContents contents;
  // Inputs that are bad, or not the recorded ones: what was made of them is of no use.
  const bool useless = error == ErrorKind::kBadInput || error == ErrorKind::kVerification;
  // Journals that cannot be read now may be readable later.
  const bool unread = !useless && !ReadJournals(contents);
  kept_ = !useless && (unread || !contents.units.empty() || !contents.rounds.empty());
  return kept_;
}

Staging::~Staging() {
  // An error here leaves a directory that the next run of this plan removes. Once the target is
  // the new one, the staging name may hold the old one, which is not removed after an error.
  if (!created_ || published() || kept_) return;
  static_cast<void>(files_.Remove(paths_.journal));
  static_cast<void>(files_.Remove(paths_.staging));
}

Result<ManifestFile> Staging::AddFile(const std::string& name, const std::string& text) {
  for (size_t slash = name.find('/'); slash != std::string::npos;
       slash = name.find('/', slash + 1)) {
    const std::string subdirectory = name.substr(0, slash);
    if (std::find(subdirectories_.begin(), subdirectories_.end(), subdirectory) !=
        subdirectories_.end())
      continue;
    MERGEPIPE_RETURN_IF_ERROR(files_.CreateDirectories(JoinPath(paths_.staging, subdirectory)));
    subdirectories_.push_back(subdirectory);
  }
  MERGEPIPE_RETURN_IF_ERROR(WriteNewFile(files_, JoinPath(paths_.staging, name), text));
  return ManifestFile{name, text.size(), HashText(text)};
}

Status Staging::Publish(bool overwrite, const PublishHook& hook) {
  MERGEPIPE_RETURN_IF_ERROR(
      PublishDirectory(files_, paths_, subdirectories_, overwrite, hook, &report_));
  if (!report_.leftover.empty()) leftovers_.push_back(report_.leftover);
  // It belongs to no directory any more: the next attempt at the target would not take it for its.
  if (!files_.Remove(paths_.journal)) leftovers_.push_back(paths_.journal);
  return {};
}

}  // namespace mergepipe
