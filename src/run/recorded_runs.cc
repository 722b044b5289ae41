#include "run/recorded_runs.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "mergepipe/manifest/manifest_codec.h"
#include "mergepipe/manifest/run_folder.h"
#include "mergepipe/plan/plan_codec.h"
#include "run/stored_run.h"

namespace mergepipe {
namespace {

constexpr uint64_t kMaxMetaBytes = uint64_t{1} << 26;

Status CheckOutput(FileSystem& files, const std::string& output, const std::string& manifest) {
  const std::string path = JoinPath(output, kManifestName);
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(files, path, kMaxRecordBytes));
  if (text == manifest) return {};
  return Fail(ErrorKind::kBadInput, path, "is not the manifest of the run");
}

Result<RecordedRun> ReadRecordedRun(FileSystem& files, const std::string& folder) {
  MERGEPIPE_ASSIGN_OR_RETURN(StoredRun stored, ReadRunFolder(files, folder));
  const std::string meta_path = JoinPath(folder, kMetaName);
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string text,
                             ReadSmallFile(files, meta_path, kMaxMetaBytes));
  MERGEPIPE_ASSIGN_OR_RETURN(const RunMeta meta, ParseMeta(text, meta_path));
  const Manifest& manifest = stored.manifest;
  if (meta.run_id != manifest.run_id || !meta.output_path.starts_with('/')) {
    return Fail(ErrorKind::kBadInput, meta_path, "is not of the run beside it");
  }
  MERGEPIPE_RETURN_IF_ERROR(CheckOutput(files, meta.output_path, stored.manifest_text));
  return RecordedRun{
      {manifest.run_id, PlanIdOf(manifest.plan_hash), manifest.plan_hash, manifest.model_id,
       meta.output_path, AbsolutePath(folder), ManifestHash(manifest), meta.finished_at},
      std::move(stored.plan_text)};
}

}  // namespace

Result<RecordedRuns> ReadRecordedRuns(FileSystem& files, const std::string& runs_directory) {
  RecordedRuns found;
  MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files.Exists(runs_directory));
  if (!there) return found;
  MERGEPIPE_ASSIGN_OR_RETURN(const auto entries, files.List(runs_directory));
  for (const DirectoryEntry& entry : entries) {
    if (entry.kind != FileKind::kDirectory) continue;
    const std::string folder = JoinPath(runs_directory, entry.name);
    auto run = ReadRecordedRun(files, folder);
    if (run) {
      found.runs.push_back(std::move(*run));
    } else {
      found.left_out.push_back(
          {entry.name, folder + ": " + run.error().problems().front().ToLine()});
    }
  }
  std::stable_sort(found.runs.begin(), found.runs.end(),
                   [](const RecordedRun& a, const RecordedRun& b) {
                     return std::tie(a.run.finished_at, a.run.run_id) <
                            std::tie(b.run.finished_at, b.run.run_id);
                   });
  return found;
}

}  // namespace mergepipe
