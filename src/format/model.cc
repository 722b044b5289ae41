#include "mergepipe/format/model.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "format/capped_problems.h"
#include "format/model_config.h"
#include "format/safetensors_file.h"
#include "format/safetensors_index.h"
#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"
#include "mergepipe/format/sparse.h"

namespace mergepipe {
namespace {

constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kConfigName = "config.json";
constexpr const char* kIncomplete = "the download may be incomplete; fetch the model again";

// What is said about weights that are there, but not in a layout that is read.
struct Refusal {
  std::string_view suffix;  // of a file's name
  std::string_view what;
  std::string_view remedy;
};

constexpr std::array<Refusal, 6> kRefusals = {{
    {"adapter_config.json", "a LoRA adapter, not supported yet", "merge it into its base first"},
    {"adapter_model.safetensors", "a LoRA adapter, not supported yet",
     "merge it into its base first"},
    {".safetensors", "neither model.safetensors nor named by an index", "pass the file itself"},
    {".bin", "a PyTorch checkpoint, not supported yet", "convert to safetensors"},
    {".bin.index.json", "a PyTorch checkpoint, not supported yet", "convert to safetensors"},
    {".gguf", "a GGUF file, not supported", "convert to safetensors"},
}};

bool IsIn(const std::vector<DirectoryEntry>& entries, std::string_view name) {
  return std::any_of(entries.begin(), entries.end(),
                     [&](const DirectoryEntry& entry) { return entry.name == name; });
}

Error IsSparse(const std::string& path) {
  return Error(ErrorKind::kBadInput, path,
               "it is a sparse output of mergepipe: the blocks that a merge touched, no checkpoint",
               "make the full checkpoint with `mergepipe materialize`");
}

// Says why a directory has nothing to read.
Error NoWeights(const std::string& path, const std::vector<DirectoryEntry>& entries) {
  if (entries.empty()) {
    return Error(ErrorKind::kBadInput, path, "the directory is empty",
                 "give a checkpoint directory");
  }
  if (IsIn(entries, kSparseName)) return IsSparse(path);
  for (const Refusal& refusal : kRefusals) {
    std::vector<std::string> names;
    for (const DirectoryEntry& entry : entries) {
      if (entry.name.ends_with(refusal.suffix)) names.push_back(entry.name);
    }
    if (names.empty()) continue;
    return Error(ErrorKind::kBadInput, path,
                 "it holds " + JoinNames(names, 3) + ": " + std::string(refusal.what),
                 std::string(refusal.remedy));
  }
  return Error(ErrorKind::kBadInput, path,
               std::string("no weights: neither ") + kSingleName + " nor " + kIndexName,
               "give a checkpoint directory or a .safetensors file");
}

Error NotSafetensors(const std::string& path) {
  const std::string name = BaseName(path);
  if (name.ends_with(".index.json")) {
    return Error(ErrorKind::kBadInput, path, "an index, not weights", "pass its directory");
  }
  for (const Refusal& refusal : kRefusals) {
    if (!name.ends_with(refusal.suffix)) continue;
    return Error(ErrorKind::kBadInput, path, std::string(refusal.what),
                 std::string(refusal.remedy));
  }
  return Error(ErrorKind::kBadInput, path, "not a .safetensors file",
               "give a checkpoint directory or a .safetensors file");
}

// Reads one model and collects what is wrong with any of its files.
class ModelReader {
 public:
  ModelReader(FileSystem& files, const std::string& path) : files_(files) { layout_.path = path; }

  Result<ModelLayout> Read();
  Result<ModelLayout> ReadAsFile();

 private:
  Status CheckExists();
  Result<ModelLayout> Finish();
  Status ReadDirectory();
  void ReadConfig();
  void RefuseQuantisedNames();
  Status ReadIndex(const std::vector<DirectoryEntry>& entries);
  void ReadFiles(const std::vector<std::string>& names);
  void ReadFile(const std::string& name);
  void CheckNamesOnce();
  void CheckIndex();

  std::string PathOf(const std::string& name) const { return JoinPath(layout_.directory, name); }

  void Add(const Error& error) {
    if (error.kind() != ErrorKind::kBadInput) kind_ = error.kind();
    problems_.Add(error);
  }
  void Add(const CappedProblems& problems) {
    if (const Status status = problems.ToStatus(); !status) Add(status.error());
  }

  FileSystem& files_;
  ModelLayout layout_;
  std::optional<SafetensorsIndex> index_;
  std::vector<bool> readable_;  // by file
  ProblemList problems_;
  ErrorKind kind_ = ErrorKind::kBadInput;
};

Status ModelReader::CheckExists() {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool exists, files_.Exists(layout_.path));
  if (exists) return {};
  return Fail(ErrorKind::kBadInput, layout_.path, "no such file or directory",
              "give a checkpoint directory or a .safetensors file");
}

Result<ModelLayout> ModelReader::ReadAsFile() {
  MERGEPIPE_RETURN_IF_ERROR(CheckExists());
  layout_.is_directory = false;
  layout_.directory = ParentPath(layout_.path);
  ReadFiles({BaseName(layout_.path)});
  return Finish();
}

Result<ModelLayout> ModelReader::Read() {
  const std::string& path = layout_.path;
  MERGEPIPE_RETURN_IF_ERROR(CheckExists());
  MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, files_.Stat(path));
  layout_.is_directory = info.kind == FileKind::kDirectory;
  if (layout_.is_directory) {
    layout_.directory = path;
    MERGEPIPE_RETURN_IF_ERROR(ReadDirectory());
    return Finish();
  }
  if (path.ends_with(".safetensors")) return ReadAsFile();
  return tl::unexpected<Error>(NotSafetensors(path));
}

Result<ModelLayout> ModelReader::Finish() {
  CheckNamesOnce();
  RefuseQuantisedNames();
  if (index_) CheckIndex();
  MERGEPIPE_RETURN_IF_ERROR(problems_.ToStatus(kind_));
  return std::move(layout_);
}

Status ModelReader::ReadDirectory() {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto entries, files_.List(layout_.directory));
  const bool has_single = IsIn(entries, kSingleName);
  const bool has_index = IsIn(entries, kIndexName);
  if (!has_single && !has_index) return tl::unexpected<Error>(NoWeights(layout_.path, entries));
  if (IsIn(entries, kConfigName)) ReadConfig();
  if (!has_index) {
    ReadFiles({kSingleName});
    return {};
  }
  if (const Status status = ReadIndex(entries); !status) Add(status.error());
  return {};
}

// Layouts that keep codes and scales in tensors of their own, by the names that they use: GPTQ and
// AWQ, compressed-tensors, bitsandbytes, FP8 with block scales.
void ModelReader::RefuseQuantisedNames() {
  static constexpr std::string_view kSuffixes[] = {".qweight",       ".qzeros",           ".g_idx",
                                                   ".weight_packed", ".weight_scale_inv", ".SCB",
                                                   ".absmax",        ".quant_map"};
  const auto quantised =
      std::find_if(layout_.tensors.begin(), layout_.tensors.end(), [](const TensorInfo& tensor) {
        return std::any_of(std::begin(kSuffixes), std::end(kSuffixes),
                           [&](std::string_view suffix) { return tensor.name.ends_with(suffix); });
      });
  if (quantised == layout_.tensors.end()) return;
  problems_.Add(layout_.path + ": tensor " + QuoteShort(quantised->name),
                "the weights are quantised, which is not supported", "convert the model to bf16");
}

void ModelReader::ReadConfig() {
  const std::string path = PathOf(kConfigName);
  auto config = ReadSmallFile(files_, path, kMaxConfigBytes).and_then([&](const std::string& text) {
    return ParseModelConfig(text, path);
  });
  if (!config) return Add(config.error());
  layout_.config = *config;
  if (!layout_.config.quantization.empty()) {
    problems_.Add(path,
                  "quantization_config: the weights are quantised (" +
                      QuoteShort(layout_.config.quantization) + "), which is not supported",
                  "convert the model to bf16");
  }
}

Status ModelReader::ReadIndex(const std::vector<DirectoryEntry>& entries) {
  const std::string path = PathOf(kIndexName);
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(files_, path, kMaxIndexBytes));
  MERGEPIPE_ASSIGN_OR_RETURN(SafetensorsIndex index, ParseSafetensorsIndex(text, path));
  const std::vector<std::string>& names = index.files;
  if (IsIn(entries, kSingleName) && names != std::vector<std::string>{kSingleName}) {
    return Fail(ErrorKind::kBadInput, layout_.path,
                std::string("it holds both ") + kSingleName + " and " + kIndexName +
                    ", which names other files",
                "remove the one that is not meant");
  }
  std::vector<std::string> missing;
  for (const std::string& name : names) {
    if (!IsIn(entries, name)) missing.push_back(name);
  }
  if (!missing.empty()) {
    problems_.Add(path,
                  "it names " + JoinNames(missing) + ", which " +
                      (missing.size() == 1 ? "is" : "are") + " not in the directory",
                  kIncomplete);
  }
  layout_.index_name = kIndexName;
  index_ = std::move(index);
  ReadFiles(index_->files);
  return {};
}

void ModelReader::ReadFiles(const std::vector<std::string>& names) {
  layout_.files.reserve(names.size());
  for (const std::string& name : names) ReadFile(name);
}

void ModelReader::ReadFile(const std::string& name) {
  const auto number = static_cast<uint32_t>(layout_.files.size());
  ModelFile& file = layout_.files.emplace_back();
  file.name = name;
  readable_.push_back(false);
  const std::string path = PathOf(name);
  const auto exists = files_.Exists(path);
  if (!exists) return Add(exists.error());
  if (!*exists) return;  // reported with the index
  auto read = ReadSafetensorsFile(files_, path);
  if (!read) return Add(read.error());
  if (const auto format = read->header.metadata.find("format");
      format != read->header.metadata.end() && format->second == kSparseFormat) {
    return Add(IsSparse(path));
  }
  readable_.back() = true;
  file.info = read->info;
  file.data_begin = read->data_begin;
  file.header_hash = read->header_hash;
  file.metadata = std::move(read->header.metadata);
  for (SafetensorsEntry& entry : read->header.entries) {
    layout_.tensors.push_back({.name = std::move(entry.name),
                               .dtype = entry.dtype,
                               .shape = std::move(entry.shape),
                               .file = number,
                               .offset = file.data_begin + entry.begin});
  }
}

void ModelReader::CheckNamesOnce() {
  CappedProblems problems(layout_.path);
  std::unordered_map<std::string_view, uint32_t> first_file;
  for (const TensorInfo& tensor : layout_.tensors) {
    const auto [first, is_new] = first_file.emplace(tensor.name, tensor.file);
    if (is_new) continue;
    problems.AddTensor(tensor.name,
                       "it is in both " + layout_.files[first->second].name + " and " +
                           layout_.files[tensor.file].name,
                       "remove one of them");
  }
  Add(problems);
}

// Index and files must agree both ways. Tensors of unreadable files are not known, so not missed.
void ModelReader::CheckIndex() {
  CappedProblems problems(PathOf(kIndexName));
  std::map<std::string, uint32_t> missing = index_->tensors;
  for (const TensorInfo& tensor : layout_.tensors) {
    const std::string& file = layout_.files[tensor.file].name;
    const auto listed = index_->tensors.find(tensor.name);
    if (listed == index_->tensors.end()) {
      problems.AddTensor(tensor.name, "it is in " + file + ", but not in the index", kIncomplete);
    } else if (listed->second != tensor.file) {
      problems.AddTensor(
          tensor.name,
          "it is in " + file + ", but the index says " + layout_.files[listed->second].name,
          kIncomplete);
    }
    missing.erase(tensor.name);
  }
  for (const auto& [tensor, file] : missing) {
    if (!readable_[file]) continue;
    problems.AddTensor(tensor, "it is not in " + layout_.files[file].name + ", as the index says",
                       kIncomplete);
  }
  Add(problems);
}

}  // namespace

uint64_t ModelLayout::WeightBytes() const {
  Bytes sum;
  for (const TensorInfo& tensor : tensors) sum += Bytes(tensor.bytes());
  return sum.count();
}

bool LooksUnchanged(const ModelLayout& a, const ModelLayout& b) {
  const auto same_file = [](const ModelFile& x, const ModelFile& y) {
    return x.name == y.name && x.info.size == y.info.size && x.info.mtime_ns == y.info.mtime_ns &&
           x.info.inode == y.info.inode && x.header_hash == y.header_hash;
  };
  return a.config == b.config &&
         std::equal(a.files.begin(), a.files.end(), b.files.begin(), b.files.end(), same_file);
}

Result<ModelLayout> ReadModel(FileSystem& files, const std::string& path) {
  return ModelReader(files, path).Read();
}

Result<ModelLayout> ReadWeightFile(FileSystem& files, const std::string& path) {
  return ModelReader(files, path).ReadAsFile();
}

}  // namespace mergepipe
