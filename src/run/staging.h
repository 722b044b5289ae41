#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mergepipe/exec/journal.h"
#include "mergepipe/format/output_layout.h"
#include "mergepipe/format/side_files.h"
#include "mergepipe/io/publish.h"
#include "mergepipe/manifest/manifest.h"
#include "mergepipe/run/merge.h"
#include "run/sparse_output.h"

namespace mergepipe {

/// What comes into being in a staging directory.
struct StagedOutput {
  std::string plan_id;
  /// Of everything that decides the bytes of the output's files: an earlier attempt counts only if
  /// it had the same.
  Hash128 identity;
  const OutputLayout& layout;
};

/// The directory in which rank 0 lets an output come into being, locked against other jobs, and
/// beside it the directory of the journals. Both stay if an attempt ends early but has finished
/// something; the next one goes on from there. Else the destructor removes them.
class Staging {
 public:
  /// Checks the target before anything is read: not there (or, with `overwrite`, an output of this
  /// program and none of `inputs`), and its parent is there.
  static Status CheckTarget(FileSystem& files, const MergeTarget& target,
                            const std::vector<std::string>& inputs);

  /// What can be said before the inputs are known: the model id, and the target without `inputs`.
  static Status CheckOptions(FileSystem& files, const MergeTarget& target);

  /// kNoSpace if the disk of the target cannot hold such an output. What an earlier attempt at the
  /// target takes counts as free.
  static Status CheckSpace(FileSystem& files, const MergeTarget& target,
                           const OutputLayout& layout);

  /// Locks the target and makes the directory with all weight files, headers written, at full size;
  /// or takes over what an earlier attempt at the same output has left, if target.resume. kNoSpace
  /// if the disk cannot hold them.
  static Result<std::unique_ptr<Staging>> Create(FileSystem& files, const MergeTarget& target,
                                                 const StagedOutput& output);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  const std::string& directory() const { return paths_.staging; }
  const std::string& journal_directory() const { return paths_.journal; }
  /// Of the output and of this directory, for the journals.
  Hash128 identity() const { return identity_; }
  /// From 1.
  int attempt() const { return attempt_; }
  /// What the attempts before have finished.
  JournalContents TakeEarlier() { return std::move(earlier_); }

  /// The attempt has failed: whether another one can go on is decided by the error and by what is
  /// in the journals. Returns that.
  bool EndAttempt(ErrorKind error);

  bool published() const { return report_.renamed; }
  /// What Publish() could not remove: the replaced output, the journals.
  const std::vector<std::string>& leftovers() const { return leftovers_; }

  /// Makes `name` (with '/' for subdirectories) with `text`, synced, and returns its record.
  Result<ManifestFile> AddFile(const std::string& name, const std::string& text);
  /// Puts the directory into place. On an error, published() tells whether it is there all the
  /// same.
  Status Publish(bool overwrite, const PublishHook& hook);

 private:
  Staging(FileSystem& files, StagingPaths paths) : files_(files), paths_(std::move(paths)) {}

  Status Start(const MergeTarget& target, const StagedOutput& output);
  Status MakeNew(const StagedOutput& output);
  Result<bool> GoOn(const StagedOutput& output);
  Status FindIdentity(const StagedOutput& output);
  Result<bool> IsPrepared(const OutputLayout& layout);
  Status KeepOnlyWeights(const OutputLayout& layout);
  Status ReadJournals(JournalContents& contents);

  FileSystem& files_;
  StagingPaths paths_;
  std::unique_ptr<FileLock> lock_;
  std::vector<std::string> subdirectories_;
  Hash128 identity_;
  int attempt_ = 1;
  JournalContents earlier_;
  bool created_ = false;
  bool kept_ = false;  // for the next attempt
  PublishReport report_;
  std::vector<std::string> leftovers_;
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
