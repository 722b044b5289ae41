#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mergepipe/base/build_info.h"
#include "mergepipe/exec/report.h"
#include "mergepipe/io/file.h"
#include "mergepipe/manifest/manifest.h"

namespace mergepipe {

/// Facts about one execution that do not decide its bytes. meta.json, schema "mergepipe.meta/1", is
/// read only to recover a lost catalog:
///
///     run_id, version, started_at, finished_at (UTC), exit_status, command_line, out (absolute)
///     build      {commit, compiler, build_type, simd, libraries: {name: version}}: of rank 0's
///                program, and its machine's instruction set (see BuildInfo)
///     seconds    {plan, exec}
///     ranks      [{rank, host, threads, merge_seconds, sync_seconds, read_seconds,
///                compute_seconds, write_seconds, transfer_seconds (see SliceReport),
///                peak_memory_bytes, expert_bytes_read, base_bytes_read,
///                output_bytes_written}]
struct RunMeta {
  std::string run_id;
  std::vector<std::string> command_line;
  std::string output_path;
  std::string started_at;
  std::string finished_at;
  int exit_status = 0;
  double plan_seconds = 0;
  double exec_seconds = 0;
  std::vector<SliceReport> ranks;  ///< their parts are not written
  BuildInfo build;
};
std::string SerializeMeta(const RunMeta& meta);
/// What a catalog needs of it: run_id, output_path, finished_at and exit_status; the rest stays
/// empty. kBadInput, with `subject` (the path), if the text is not such a record.
Result<RunMeta> ParseMeta(const std::string& text, const std::string& subject);

/// Those that this layer uses.
std::vector<Library> ManifestLibraries();

/// The folder of one run, runs/<run_id>/, with plan.json, manifest.json and meta.json. Removed by
/// the destructor unless kept. As long as this exists, kRunLockName in it is locked, where the
/// filesystem can: so a run that is under way is told from one that was killed.
class RunFolder {
 public:
  /// Makes runs/<wanted>, or runs/<wanted>_2, ... if that is taken.
  static Result<RunFolder> Create(FileSystem& files, const std::string& runs_directory,
                                  const std::string& wanted);
  ~RunFolder();
  RunFolder(RunFolder&& other) noexcept;
  RunFolder& operator=(RunFolder&&) = delete;

  const std::string& run_id() const { return run_id_; }
  /// runs_directory as it was given, and the id.
  const std::string& path() const { return path_; }

  /// Writes one file of it, synced; its name too once the folder is kept.
  Status Write(const std::string& name, const std::string& text);
  /// Makes the names durable.
  Status Sync();
  /// From here on the folder stays.
  void Keep() { keep_ = true; }

 private:
  RunFolder(FileSystem& files, std::string runs_directory, std::string run_id);

  FileSystem* files_;
  std::string runs_directory_;
  std::string run_id_;
  std::string path_;
  std::unique_ptr<FileLock> lock_;
  bool keep_ = false;
};

inline constexpr const char* kPlanName = "plan.json";
inline constexpr const char* kMetaName = "meta.json";
inline constexpr const char* kRunLockName = ".mergepipe.lock";
/// Larger records are refused when they are read.
inline constexpr uint64_t kMaxRecordBytes = uint64_t{1} << 28;

}  // namespace mergepipe
