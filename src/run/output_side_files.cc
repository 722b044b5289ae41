#include <algorithm>

#include "mergepipe/base/text.h"
#include "mergepipe/manifest/run_folder.h"
#include "run/staging.h"

namespace mergepipe {
namespace {

Status CheckNames(const std::string& directory, OutputForm form, const SideFiles& side) {
  ProblemList problems;
  const auto check = [&](const std::string& path) {
    if (!IsUtf8(path))
      problems.Add(JoinPath(directory, path), "has a name that is not UTF-8",
                   "rename or remove it");
  };
  for (const SideFile& file : side.copied) {
    check(file.path);
    if (form == OutputForm::kSparse && file.path == kPlanName) {
      problems.Add(JoinPath(directory, file.path), "has the name of a sparse output's own record",
                   "rename or remove it, or choose --output full");
    }
  }
  for (const LeftOutFile& file : side.left_out) check(file.path);
  return problems.ToStatus(ErrorKind::kBadInput);
}

// An index may name files that do not look like weights.
bool IsWeightFile(const ModelLayout& model, const std::string& path) {
  return std::any_of(model.files.begin(), model.files.end(),
                     [&](const ModelFile& file) { return file.name == path; });
}

Status Add(const std::string& name, const std::string& text, Staging& staging, Manifest& manifest) {
  MERGEPIPE_ASSIGN_OR_RETURN(const ManifestFile file, staging.AddFile(name, text));
  manifest.side_files.push_back(file);
  return {};
}

}  // namespace

Status CopySideFiles(FileSystem& files, const ModelLayout& base, std::optional<DType> out_dtype,
                     Staging& staging, Manifest& manifest) {
  if (!base.is_directory) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(SideFiles side, ListSideFiles(files, base.directory));
  MERGEPIPE_RETURN_IF_ERROR(CheckNames(base.directory, manifest.output, side));
  for (const SideFile& file : side.copied) {
    if (IsWeightFile(base, file.path)) {
      side.left_out.push_back({file.path, "weights"});
      continue;
    }
    const std::string path = JoinPath(base.directory, file.path);
    MERGEPIPE_ASSIGN_OR_RETURN(std::string text, ReadSmallFile(files, path, kMaxSideFileBytes));
    if (file.path == "config.json" && out_dtype) {
      MERGEPIPE_ASSIGN_OR_RETURN(text, EditConfig(text, *out_dtype, path));
    }
    MERGEPIPE_RETURN_IF_ERROR(Add(file.path, text, staging, manifest));
  }
  manifest.left_out = std::move(side.left_out);
  return {};
}

Status TakeOverSideFiles(FileSystem& files, const SparseOutput& sparse, Staging& staging,
                         Manifest& manifest) {
  for (const ManifestFile& file : sparse.manifest.side_files) {
    if (file.name == kPlanName) continue;
    const std::string path = JoinPath(sparse.directory, file.name);
    MERGEPIPE_ASSIGN_OR_RETURN(const std::string text,
                               ReadSmallFile(files, path, kMaxSideFileBytes));
    if (HashText(text) != file.hash) {
      return Fail(ErrorKind::kBadInput, path, "is not what the sparse output's manifest states",
                  "restore the file, or merge again");
    }
    MERGEPIPE_RETURN_IF_ERROR(Add(file.name, text, staging, manifest));
  }
  manifest.left_out = sparse.manifest.left_out;
  return {};
}

Status AddIndex(FileSystem& files, const ModelLayout& base, const OutputLayout& layout,
                Staging& staging, Manifest& manifest) {
  if (!layout.index_name) return {};
  const std::string path = JoinPath(base.directory, *layout.index_name);
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string base_index,
                             ReadSmallFile(files, path, kMaxSideFileBytes));
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string text, IndexText(layout, base_index, path));
  return Add(*layout.index_name, text, staging, manifest);
}

Status AddPlanFile(const std::string& plan_text, Staging& staging, Manifest& manifest) {
  return Add(kPlanName, plan_text, staging, manifest);
}

}  // namespace mergepipe
