#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mergepipe/format/output_layout.h"
#include "mergepipe/format/side_files.h"
#include "mergepipe/io/publish.h"
#include "mergepipe/manifest/manifest.h"
#include "mergepipe/run/merge.h"
#include "run/sparse_output.h"

namespace mergepipe {

/// The directory in which rank 0 lets an output come into being, locked against other jobs. Removed
/// by the destructor unless it was published.
class Staging {
 public:
  /// Checks the target before anything is read: not there (or, with `overwrite`, an output of this
  /// program and none of `inputs`), and its parent is there.
  static Status CheckTarget(FileSystem& files, const MergeTarget& target,
                            const std::vector<std::string>& inputs);

  /// What can be said before the inputs are known: the model id, and the target without `inputs`.
  static Status CheckOptions(FileSystem& files, const MergeTarget& target);

  /// kNoSpace if the disk of the target cannot hold such an output.
  static Status CheckSpace(FileSystem& files, const MergeTarget& target,
                           const OutputLayout& layout);

  /// Locks the target and makes the directory with all weight files, headers written, at full size.
  /// kNoSpace if the disk cannot hold them.
  static Result<std::unique_ptr<Staging>> Create(FileSystem& files, const MergeTarget& target,
                                                 const std::string& plan_id,
                                                 const OutputLayout& layout);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  const std::string& directory() const { return paths_.staging; }
  bool published() const { return report_.renamed; }
  /// The replaced output, if it could not be removed.
  const std::string& leftover() const { return report_.leftover; }

  /// Makes `name` (with '/' for subdirectories) with `text`, synced, and returns its record.
  Result<ManifestFile> AddFile(const std::string& name, const std::string& text);
  /// Puts the directory into place. On an error, published() tells whether it is there all the
  /// same.
  Status Publish(bool overwrite, const PublishHook& hook);

 private:
  Staging(FileSystem& files, StagingPaths paths) : files_(files), paths_(std::move(paths)) {}

  FileSystem& files_;
  StagingPaths paths_;
  std::unique_ptr<FileLock> lock_;
  std::vector<std::string> subdirectories_;
  bool created_ = false;
  PublishReport report_;
};

/// The side files of an output: each is put into the staging directory and recorded in side_files.
///
/// The base's, config.json with the output's dtype; fills left_out too. kBadInput for a name that
/// is not UTF-8 (it could not be recorded), and for one that a sparse output has for itself.
Status CopySideFiles(FileSystem& files, const ModelLayout& base, std::optional<DType> out_dtype,
                     Staging& staging, Manifest& manifest);
/// Those of a sparse output, which are the ones of the full output. kBadInput if one was changed.
Status TakeOverSideFiles(FileSystem& files, const SparseOutput& sparse, Staging& staging,
                         Manifest& manifest);
/// The index of a sharded output.
Status AddIndex(FileSystem& files, const ModelLayout& base, const OutputLayout& layout,
                Staging& staging, Manifest& manifest);
/// The plan that a sparse output carries.
Status AddPlanFile(const std::string& plan_text, Staging& staging, Manifest& manifest);

}  // namespace mergepipe
