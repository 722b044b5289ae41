#include "mergepipe/manifest/run_folder.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace mergepipe {
namespace {
constexpr int kMaxAttempts = 10'000;
constexpr const char* kMetaSchema = "mergepipe.meta/1";

nlohmann::json BuildJson(const BuildInfo& build) {
  nlohmann::json libraries = nlohmann::json::object();
  for (const Library& library : build.libraries) libraries[library.name] = library.version;
  return {{"commit", build.commit},
          {"compiler", build.compiler},
          {"build_type", build.build_type},
          {"simd", build.simd},
          {"libraries", std::move(libraries)}};
}

}  // namespace

std::vector<Library> ManifestLibraries() {
  return {{"nlohmann_json", std::to_string(NLOHMANN_JSON_VERSION_MAJOR) + "." +
                                std::to_string(NLOHMANN_JSON_VERSION_MINOR) + "." +
                                std::to_string(NLOHMANN_JSON_VERSION_PATCH)}};
}

std::string SerializeMeta(const RunMeta& meta) {
  nlohmann::json ranks = nlohmann::json::array();
  for (const SliceReport& rank : meta.ranks) {
    ranks.push_back({{"rank", rank.rank},
                     {"host", rank.host},
                     {"threads", rank.threads},
                     {"merge_seconds", rank.merge_seconds},
                     {"sync_seconds", rank.sync_seconds},
                     {"read_seconds", rank.read_seconds},
                     {"compute_seconds", rank.compute_seconds},
                     {"write_seconds", rank.write_seconds},
                     {"transfer_seconds", rank.transfer_seconds},
                     {"peak_memory_bytes", rank.peak_memory_bytes},
                     {"expert_bytes_read", rank.expert_bytes_read},
                     {"base_bytes_read", rank.base_bytes_read},
                     {"output_bytes_written", rank.output_bytes_written}});
  }
  const nlohmann::json json = {
      {"schema", kMetaSchema},
      {"version", meta.build.version},
      {"build", BuildJson(meta.build)},
      {"run_id", meta.run_id},
      {"command_line", meta.command_line},
      {"out", meta.output_path},
      {"started_at", meta.started_at},
      {"finished_at", meta.finished_at},
      {"exit_status", meta.exit_status},
      {"seconds", {{"plan", meta.plan_seconds}, {"exec", meta.exec_seconds}}},
      {"ranks", std::move(ranks)},
  };
  // A command line need not be UTF-8.
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

Result<RunMeta> ParseMeta(const std::string& text, const std::string& subject) {
  try {
    const auto json = nlohmann::json::parse(text);
    RunMeta meta;
    if (json.at("schema") == kMetaSchema) {
      meta.run_id = json.at("run_id").get<std::string>();
      meta.output_path = json.at("out").get<std::string>();
      meta.finished_at = json.at("finished_at").get<std::string>();
      const nlohmann::json& status = json.at("exit_status");
      const auto code =
          Narrow<int>(status.is_number_unsigned() ? status.get<uint64_t>() : UINT64_MAX);
      if (code) {
        meta.exit_status = *code;
        return meta;
      }
    }
  } catch (const std::exception&) {
    // Said below.
  }
  return Fail(ErrorKind::kBadInput, subject,
              "is not a record of schema " + std::string(kMetaSchema),
              "it was changed since it was written");
}

RunFolder::RunFolder(FileSystem& files, std::string runs_directory, std::string run_id)
    : files_(&files),
      runs_directory_(std::move(runs_directory)),
      run_id_(std::move(run_id)),
      path_(JoinPath(runs_directory_, run_id_)) {}

RunFolder::RunFolder(RunFolder&& other) noexcept
    : files_(std::exchange(other.files_, nullptr)),
      runs_directory_(std::move(other.runs_directory_)),
      run_id_(std::move(other.run_id_)),
      path_(std::move(other.path_)),
      lock_(std::move(other.lock_)),
      keep_(other.keep_) {}

RunFolder::~RunFolder() {
  if (files_ == nullptr || keep_) return;
  lock_.reset();  // NFS keeps the name of an open file, and with it the folder
  static_cast<void>(files_->Remove(path_));
}

Result<RunFolder> RunFolder::Create(FileSystem& files, const std::string& runs_directory,
                                    const std::string& wanted) {
  MERGEPIPE_RETURN_IF_ERROR(CreateDurableDirectories(files, runs_directory));
  for (int attempt = 1; attempt <= kMaxAttempts; ++attempt) {
    const std::string run_id = attempt == 1 ? wanted : wanted + "_" + std::to_string(attempt);
    MERGEPIPE_ASSIGN_OR_RETURN(const bool made,
                               files.CreateDirectory(JoinPath(runs_directory, run_id)));
    if (!made) continue;
    RunFolder folder(files, runs_directory, run_id);
    auto lock = files.Lock(JoinPath(folder.path_, kRunLockName));
    if (lock) folder.lock_ = std::move(*lock);  // without locks a killed run looks like a live one
    return folder;
  }
  return Fail(ErrorKind::kIo, runs_directory, "has no free name for run '" + wanted + "'",
              "choose another --runs-dir");
}

Status RunFolder::Write(const std::string& name, const std::string& text) {
  MERGEPIPE_RETURN_IF_ERROR(WriteNewFile(*files_, JoinPath(path_, name), text));
  return keep_ ? files_->SyncDirectory(path_) : Status();
}

Status RunFolder::Sync() {
  MERGEPIPE_RETURN_IF_ERROR(files_->SyncDirectory(path_));
  return files_->SyncDirectory(runs_directory_);
}

}  // namespace mergepipe
