#include "run/staging.h"

#include <algorithm>

#include "mergepipe/base/text.h"
#include "mergepipe/manifest/manifest_codec.h"
#include "mergepipe/manifest/run_folder.h"
#include "mergepipe/run/models.h"

namespace mergepipe {
namespace {

// Side files, index and records come on top of the weights.
constexpr uint64_t kSpaceForTheRest = 16 * kMiB;

Status CheckSpaceOf(FileSystem& files, const std::string& parent, const OutputLayout& layout) {
  uint64_t needed = kSpaceForTheRest;
  for (const OutputFile& file : layout.files) needed += file.size;
  MERGEPIPE_ASSIGN_OR_RETURN(const uint64_t free, files.FreeSpace(parent));
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
  return CheckSpaceOf(files, ParentPath(AbsolutePath(target.directory)), layout);
}

Result<std::unique_ptr<Staging>> Staging::Create(FileSystem& files, const MergeTarget& target,
                                                 const std::string& plan_id,
                                                 const OutputLayout& layout) {
  std::unique_ptr<Staging> staging(
      new Staging(files, StagingPaths::For(target.directory, plan_id)));
  const StagingPaths& paths = staging->paths_;
  MERGEPIPE_ASSIGN_OR_RETURN(staging->lock_, files.Lock(paths.lock));
  MERGEPIPE_RETURN_IF_ERROR(SettleExchange(files, paths));
  // Left by a killed run of the same plan: its lock is free, so nobody is writing there.
  MERGEPIPE_RETURN_IF_ERROR(files.Remove(paths.staging));
  MERGEPIPE_RETURN_IF_ERROR(CheckSpaceOf(files, paths.parent, layout));
  staging->created_ = true;
  MERGEPIPE_RETURN_IF_ERROR(files.CreateDirectories(paths.staging));
  for (const OutputFile& file : layout.files) {
    MERGEPIPE_RETURN_IF_ERROR(MakeWeightFile(files, JoinPath(paths.staging, file.name), file));
  }
  return staging;
}

Staging::~Staging() {
  // An error here leaves a directory that the next run of this plan removes. Once the target is
  // the new one, the staging name may hold the old one, which is not removed after an error.
  if (created_ && !published()) static_cast<void>(files_.Remove(paths_.staging));
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
  return PublishDirectory(files_, paths_, subdirectories_, overwrite, hook, &report_);
}

}  // namespace mergepipe
