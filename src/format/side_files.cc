#include "mergepipe/format/side_files.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

#include "mergepipe/base/units.h"

namespace mergepipe {
namespace {

constexpr std::array<std::string_view, 16> kWeightExtensions = {
    ".safetensors", ".bin",  ".pt",        ".pth", ".ckpt",   ".gguf",    ".ggml", ".h5",
    ".msgpack",     ".onnx", ".onnx_data", ".npz", ".tflite", ".mlmodel", ".ot",   ".pkl"};

std::string LowerCase(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

bool IsWeightName(std::string_view name) {
  return std::any_of(kWeightExtensions.begin(), kWeightExtensions.end(),
                     [&](std::string_view extension) { return name.ends_with(extension); });
}

// "model.safetensors.index.json", "model.safetensors.index.fp16.json",
// "pytorch_model.bin.index.json".
bool IsWeightIndexName(std::string_view name) {
  const size_t index = name.rfind(".index.");
  return index != std::string_view::npos && name.ends_with(".json") &&
         IsWeightName(name.substr(0, index));
}

// Why something is left out by what a directory tells of it, or empty.
std::string ReasonToLeaveOut(const DirectoryEntry& entry, bool at_top) {
  const std::string name = LowerCase(entry.name);
  if (name.starts_with(".")) return "hidden";
  if (entry.kind == FileKind::kDirectory) return entry.is_symlink ? "a link to a directory" : "";
  if (entry.kind != FileKind::kRegular) {
    return entry.is_symlink ? "a link to nothing, or to no regular file" : "not a regular file";
  }
  if (IsWeightName(name)) return "weights";
  if (IsWeightIndexName(name)) return "an index of weights";
  if (at_top && name == "manifest.json") return "the record of a former merge";
  return "";
}

// `prefix` is empty or ends in '/'.
Status ListInto(FileSystem& files, const std::string& root, const std::string& prefix,
                SideFiles& result) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto entries, files.List(JoinPath(root, prefix)));
  for (const DirectoryEntry& entry : entries) {
    const std::string path = prefix + entry.name;
    if (std::string reason = ReasonToLeaveOut(entry, prefix.empty()); !reason.empty()) {
      result.left_out.push_back({path, std::move(reason)});
      continue;
    }
    if (entry.kind == FileKind::kDirectory) {
      MERGEPIPE_RETURN_IF_ERROR(ListInto(files, root, path + '/', result));
      continue;
    }
    MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, files.Stat(JoinPath(root, path)));
    if (info.size > kMaxSideFileBytes) {
      result.left_out.push_back({path, "larger than " + FormatBytes(Bytes(kMaxSideFileBytes))});
    } else {
      result.copied.push_back({path, info.size});
    }
  }
  return {};
}

}  // namespace

Result<SideFiles> ListSideFiles(FileSystem& files, const std::string& directory) {
  SideFiles result;
  MERGEPIPE_RETURN_IF_ERROR(ListInto(files, directory, "", result));
  const auto by_path = [](const auto& a, const auto& b) { return a.path < b.path; };
  std::sort(result.copied.begin(), result.copied.end(), by_path);
  std::sort(result.left_out.begin(), result.left_out.end(), by_path);
  return result;
}

}  // namespace mergepipe
