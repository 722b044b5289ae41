#include "format/model_config.h"

#include "format/capped_problems.h"
#include "format/json_visitor.h"

namespace mergepipe {
namespace {

class ConfigReader : public JsonVisitor {
 public:
  explicit ConfigReader(CappedProblems& problems) : problems_(problems) { config_.present = true; }

  void Value(const JsonPath& path, const JsonValue& value) override {
    if (path.empty()) {
      if (value.kind != JsonKind::kObject) problems_.Add("not a JSON object");
      return;
    }
    const size_t first = path[0] == "text_config" ? 1 : 0;
    const size_t depth = path.size() - first;
    if (depth == 1 && path[first] == "tie_word_embeddings") SetTied(value);
    if (depth == 1 && path[first] == "quantization_config" && value.kind != JsonKind::kNull &&
        config_.quantization.empty()) {
      config_.quantization = "unnamed";
    }
    if (depth == 2 && path[first] == "quantization_config" && path[first + 1] == "quant_method" &&
        value.kind == JsonKind::kString && !value.text.empty()) {
      config_.quantization = value.text;
    }
  }

  void End(const JsonPath&) override {}

  ModelConfig& config() { return config_; }

 private:
  void SetTied(const JsonValue& value) {
    if (value.kind == JsonKind::kBool) {
      config_.tie_word_embeddings = config_.tie_word_embeddings || value.flag;
    } else if (value.kind != JsonKind::kNull) {
      problems_.Add("tie_word_embeddings is neither true nor false");
    }
  }

  CappedProblems& problems_;
  ModelConfig config_;
};

}  // namespace

Result<ModelConfig> ParseModelConfig(std::string_view json, const std::string& subject) {
  CappedProblems problems(subject);
  ConfigReader reader(problems);
  if (const auto wrong = VisitJson(MaskPythonNumbers(json), reader)) {
    problems.Add(*wrong, "the file is damaged; fetch it again");
  }
  MERGEPIPE_RETURN_IF_ERROR(problems.ToStatus());
  return std::move(reader.config());
}

}  // namespace mergepipe
