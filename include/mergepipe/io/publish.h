#pragma once

#include <functional>
#include <string>
#include <vector>

#include "mergepipe/io/file.h"

/// \file
/// How an output directory comes into being: whole, synced, in one rename. One function owns the
/// order.
namespace mergepipe {

/// Where the parts of one target live while it is made. All are beside the target, so that the
/// rename stays within one filesystem.
struct StagingPaths {
  std::string target;    ///< absolute
  std::string parent;    ///< of the target
  std::string staging;   ///< ".<name>.mergepipe-<plan id>"
  std::string journal;   ///< ".<name>.mergepipe-<plan id>.journal": a directory
  std::string lock;      ///< ".<name>.mergepipe.lock"
  std::string previous;  ///< ".<name>.mergepipe-previous": see PreviousName

  static StagingPaths For(const std::string& target, const std::string& plan_id);
};

/// The name beside `target` that holds the old directory for a moment where a filesystem cannot
/// exchange two names at once (NFS, Lustre, GPFS). A killed exchange leaves it behind.
std::string PreviousName(const std::string& target);

/// Settles what a killed exchange left behind, under the lock of the target: the old directory gets
/// its name back if the target is missing, and goes if the new one is in place.
Status SettleExchange(FileSystem& files, const StagingPaths& paths);

/// Moments of publishing at which a crash must lose nothing. A test stops at each.
enum class PublishPoint {
  kBeforeDirectorySync,  ///< all files are written and synced
  kBeforeRename,         ///< their names are synced too
  kAfterRename,          ///< the target is there, its name not yet synced
  kAfterExchange,        ///< --overwrite: the old target has the staging name
  kBeforeOldRemoval,     ///< the parent is synced, the old target not yet removed
  kDone,
};

/// Called at each point; an error stops the publishing there, as a crash would.
using PublishHook = std::function<Status(PublishPoint)>;

/// How far a publishing came, also when it failed.
struct PublishReport {
  bool renamed =
      false;  ///< the target is the new directory; the staging name holds the old one, or nothing
  std::string leftover;  ///< the old directory, if it could not be removed (NFS keeps open files):
                         ///< no failure
};

/// Makes the finished staging directory the target. Every file in it must be synced already. Order:
/// sync the staging directory (and `subdirectories` of it), rename (to a name that must not exist,
/// or, with `overwrite`, in exchange with what is there), sync the parent, remove the old one.
Status PublishDirectory(FileSystem& files, const StagingPaths& paths,
                        const std::vector<std::string>& subdirectories, bool overwrite,
                        const PublishHook& hook = {}, PublishReport* report = nullptr);

}  // namespace mergepipe
