#include "mergepipe/io/publish.h"

namespace mergepipe {

StagingPaths StagingPaths::For(const std::string& target, const std::string& plan_id) {
  StagingPaths paths;
  paths.target = AbsolutePath(target);
  paths.parent = ParentPath(paths.target);
  const std::string hidden = "." + BaseName(paths.target) + ".mergepipe";
  paths.staging = JoinPath(paths.parent, hidden + "-" + plan_id);
  paths.journal = paths.staging + ".journal";
  paths.previous = PreviousName(paths.target);
  paths.lock = JoinPath(paths.parent, hidden + ".lock");
  return paths;
}

std::string PreviousName(const std::string& target) {
  return JoinPath(ParentPath(target), "." + BaseName(target) + ".mergepipe-previous");
}

Status SettleExchange(FileSystem& files, const StagingPaths& paths) {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool left, files.Exists(paths.previous));
  if (!left) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files.Exists(paths.target));
  if (there) return files.Remove(paths.previous);
  MERGEPIPE_RETURN_IF_ERROR(files.Rename(paths.previous, paths.target, RenameMode::kMustNotExist));
  return files.SyncDirectory(paths.parent);
}

Status PublishDirectory(FileSystem& files, const StagingPaths& paths,
                        const std::vector<std::string>& subdirectories, bool overwrite,
                        const PublishHook& hook, PublishReport* report) {
  const auto reach = [&](PublishPoint point) { return hook ? hook(point) : Status(); };

  MERGEPIPE_RETURN_IF_ERROR(reach(PublishPoint::kBeforeDirectorySync));
  for (const std::string& subdirectory : subdirectories) {
    MERGEPIPE_RETURN_IF_ERROR(files.SyncDirectory(JoinPath(paths.staging, subdirectory)));
  }
  MERGEPIPE_RETURN_IF_ERROR(files.SyncDirectory(paths.staging));

  MERGEPIPE_RETURN_IF_ERROR(reach(PublishPoint::kBeforeRename));
  MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files.Exists(paths.target));
  if (there && !overwrite) {
    return Fail(ErrorKind::kUsage, paths.target, "exists already",
                "choose another --out, or pass --overwrite");
  }
  MERGEPIPE_RETURN_IF_ERROR(files.Rename(
      paths.staging, paths.target, there ? RenameMode::kExchange : RenameMode::kMustNotExist));
  if (report != nullptr) report->renamed = true;

  MERGEPIPE_RETURN_IF_ERROR(
      reach(there ? PublishPoint::kAfterExchange : PublishPoint::kAfterRename));
  MERGEPIPE_RETURN_IF_ERROR(files.SyncDirectory(paths.parent));

  if (there) {
    MERGEPIPE_RETURN_IF_ERROR(reach(PublishPoint::kBeforeOldRemoval));
    if (!files.Remove(paths.staging) && report != nullptr) report->leftover = paths.staging;
  }
  return reach(PublishPoint::kDone);
}

}  // namespace mergepipe
