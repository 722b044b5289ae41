#include "format/safetensors_index.h"

#include <algorithm>

#include "format/capped_problems.h"
#include "format/json_visitor.h"

namespace mergepipe {
namespace {

constexpr const char* kDamaged = "the index is damaged; fetch it again";

// The other files of a checkpoint, and the record of a merge, are JSON: weights in their place
// would come upon them in the output.
bool IsPlainFileName(std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.ends_with(".json")) return false;
  return std::none_of(name.begin(), name.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return c == '/' || c == '\\' || byte < 0x20 || byte == 0x7f;
  });
}

class IndexReader : public JsonVisitor {
 public:
  explicit IndexReader(CappedProblems& problems) : problems_(problems) {}

  void Value(const JsonPath& path, const JsonValue& value) override {
    if (path.empty() && value.kind != JsonKind::kObject)
      problems_.Add("not a JSON object", kDamaged);
    if (path.size() == 1) {
      in_map_ = path[0] == "weight_map" && value.kind == JsonKind::kObject;
      found_map_ = found_map_ || in_map_;
    }
    if (path.size() == 2 && in_map_) AddTensor(path[1], value);
  }

  void End(const JsonPath&) override {}

  // Numbers the files in their sorted order.
  SafetensorsIndex Finish() {
    if (!found_map_) {
      problems_.Add("no weight_map", kDamaged);
    } else if (file_numbers_.empty()) {
      problems_.Add("weight_map is empty", kDamaged);
    }
    SafetensorsIndex index;
    for (auto& [name, number] : file_numbers_) {
      number = static_cast<uint32_t>(index.files.size());
      index.files.push_back(name);
    }
    for (const auto& [tensor, file] : tensors_) index.tensors.emplace(tensor, file->second);
    return index;
  }

 private:
  using FileNumbers = std::map<std::string, uint32_t, std::less<>>;

  void AddTensor(const std::string& tensor, const JsonValue& value) {
    if (value.kind != JsonKind::kString) {
      problems_.AddTensor(tensor, "its file in weight_map is not a string", kDamaged);
    } else if (!IsPlainFileName(value.text)) {
      problems_.AddTensor(tensor,
                          "its file " + QuoteShort(value.text) + " is not a plain file name",
                          "weight files must be in the directory of the index");
    } else {
      auto file = file_numbers_.find(value.text);
      if (file == file_numbers_.end()) file = file_numbers_.emplace(value.text, 0).first;
      tensors_.emplace_back(tensor, file);
    }
  }

  CappedProblems& problems_;
  bool in_map_ = false;
  bool found_map_ = false;
  FileNumbers file_numbers_;
  std::vector<std::pair<std::string, FileNumbers::const_iterator>> tensors_;
};

}  // namespace

Result<SafetensorsIndex> ParseSafetensorsIndex(std::string_view json, const std::string& subject) {
  CappedProblems problems(subject);
  IndexReader reader(problems);
  if (const auto wrong = VisitJson(json, reader)) {
    problems.Add(*wrong, kDamaged);
    return tl::unexpected<Error>(problems.ToStatus().error());
  }
  SafetensorsIndex index = reader.Finish();
  MERGEPIPE_RETURN_IF_ERROR(problems.ToStatus());
  return index;
}

}  // namespace mergepipe
