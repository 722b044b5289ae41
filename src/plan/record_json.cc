#include "mergepipe/plan/record_json.h"

#include <algorithm>
#include <exception>

#include "mergepipe/base/text.h"
#include "mergepipe/format/safetensors.h"
#include "mergepipe/plan/plan_codec.h"

namespace mergepipe::record {
namespace {

constexpr size_t kSha256Digits = 64;

std::string Canonical(const Json& json) { return json.dump(1) + "\n"; }

std::string HashAsItIs(const Kind& kind, Json json) {
  json.erase(kind.hash_key);
  if (kind.id_key != nullptr) json.erase(kind.id_key);
  return Sha256Hex(json.dump());
}

// What is wrong with the layout of a text, before a tree is made of it: canonical text has a line
// for each value, so that one of n bytes makes no more than some n bytes of tree.
const char* LayoutProblem(const std::string& text) {
  if (TooDeep(text)) return "is nested too deeply";
  bool in_string = false;
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == ',' && text[i + 1] != '\n') {
      return "is not in canonical form";
    }
  }
  return nullptr;
}

}  // namespace

bool TooDeep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

const Json& Array(const Json& value) {
  Require(value.is_array(), "an array is missing");
  return value;
}

void Require(bool condition, const std::string& what) {
  if (!condition) throw Malformed(what);
}

uint64_t Unsigned(const Json& value, const char* what) {
  Require(value.is_number_unsigned(), std::string(what) + " is not a whole number");
  return value.get<uint64_t>();
}

double Finite(const Json& value, const char* what) {
  Require(value.is_number() && std::isfinite(value.get<double>()),
          std::string(what) + " is not a finite number");
  return value.get<double>();
}

Hash128 Hash(const Json& value) {
  const auto hash = Hash128::FromHex(value.get_ref<const std::string&>());
  Require(hash.has_value(), "a hash is malformed");
  return *hash;
}

DType Type(const Json& value) {
  const auto dtype = ParseDType(value.get_ref<const std::string&>());
  Require(dtype.has_value(), "a dtype is unknown");
  return *dtype;
}

bool Choice(const Json& value, const char* yes, const char* no) {
  const std::string& word = value.get_ref<const std::string&>();
  Require(word == yes || word == no, Quote(word) + " is neither " + yes + " nor " + no);
  return word == yes;
}

std::vector<uint64_t> Shape(const Json& value) {
  Require(Array(value).size() <= kMaxRank, "a shape has too many dimensions");
  std::vector<uint64_t> shape;
  for (const Json& dimension : Array(value)) shape.push_back(Unsigned(dimension, "a shape"));
  const auto elements = CheckedProduct(shape);
  Require(elements && CheckedMultiply(*elements, 64).has_value(), "a shape overflows");
  return shape;
}

void CountPairs(uint64_t blocks, uint64_t experts, uint64_t& pairs) {
  experts = std::max<uint64_t>(experts, 1);  // blocks take memory by themselves
  Require(blocks <= (kMaxBlocks - pairs) / experts, "there are too many blocks");
  pairs += blocks * experts;
}

std::string HexHash(const Json& value) {
  const std::string& text = value.get_ref<const std::string&>();
  Require(text.size() == kSha256Digits &&
              text.find_first_not_of("0123456789abcdef") == std::string::npos,
          "a hash is malformed");
  return text;
}

PlannedModel Model(const Json& value) {
  return {value.at("id").get<std::string>(), Hash(value.at("fingerprint"))};
}

std::vector<PlannedModel> Models(const Json& value) {
  std::vector<PlannedModel> models;
  for (const Json& model : Array(value)) models.push_back(Model(model));
  return models;
}

std::vector<DroppedTensor> Dropped(const Json& value, size_t experts) {
  std::vector<DroppedTensor> dropped;
  for (const Json& tensor : Array(value)) {
    const uint64_t expert = Unsigned(tensor.at("expert"), "expert");
    Require(expert < experts, "dropped names an expert that is not there");
    dropped.push_back({static_cast<uint32_t>(expert), tensor.at("name").get<std::string>(),
                       tensor.at("reason").get<std::string>()});
  }
  return dropped;
}

TensorRule Rule(const Json& value) {
  return Choice(value, "merge", "base") ? TensorRule::kMerge : TensorRule::kBase;
}

Json ToJson(const PlannedModel& model) {
  return {{"id", model.id}, {"fingerprint", model.fingerprint.ToHex()}};
}

Json ToJson(const std::vector<PlannedModel>& models) {
  Json json = Json::array();
  for (const PlannedModel& model : models) json.push_back(ToJson(model));
  return json;
}

Json ToJson(const std::vector<DroppedTensor>& dropped) {
  Json json = Json::array();
  for (const DroppedTensor& tensor : dropped) {
    json.push_back({{"expert", tensor.expert}, {"name", tensor.name}, {"reason", tensor.reason}});
  }
  return json;
}

std::optional<ErrorBound> Bound(const Json& value) {
  if (value.is_null()) return std::nullopt;
  return ErrorBound{Finite(value.at("unread"), "unread"), Finite(value.at("rounding"), "rounding"),
                    Finite(value.at("total"), "total")};
}

Json ToJson(const std::optional<ErrorBound>& bound) {
  if (!bound) return {};
  return {{"unread", bound->unread}, {"rounding", bound->rounding}, {"total", bound->total}};
}

Json ToJson(TensorRule rule) { return rule == TensorRule::kMerge ? "merge" : "base"; }

std::string HashOf(const Kind& kind, Json json) {
  json["schema"] = kind.Schema();
  return HashAsItIs(kind, std::move(json));
}

std::string ToText(const Kind& kind, Json json) {
  json["schema"] = kind.Schema();
  const std::string hash = HashOf(kind, json);
  json[kind.hash_key] = hash;
  if (kind.id_key != nullptr) json[kind.id_key] = PlanIdOf(hash);
  return Canonical(json);
}

Status ReadRecord(const Kind& kind, const std::string& text, const std::string& subject,
                  const std::function<void(const Json&)>& read) {
  const auto damaged = [&](const std::string& what) {
    return Fail(ErrorKind::kVerification, subject, what,
                "the file was changed or damaged since it was written");
  };
  if (const char* problem = LayoutProblem(text)) return damaged(problem);
  try {
    const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return damaged("is not a JSON object");
    const std::string schema = json.value("schema", "");
    if (!schema.starts_with(std::string("mergepipe.") + kind.name + "/"))
      return damaged(std::string("is not a ") + kind.name);
    if (Canonical(json) != text) return damaged("is not in canonical form");
    const std::string hash = HashAsItIs(kind, json);
    const bool id_fits = kind.id_key == nullptr || json.value(kind.id_key, "") == PlanIdOf(hash);
    if (json.value(kind.hash_key, "") != hash || !id_fits)
      return damaged("does not have the hash that it states");
    if (schema != kind.Schema()) {
      return Fail(ErrorKind::kBadInput, subject,
                  "has schema " + Quote(schema) + ", this program knows " + kind.Schema(),
                  "use the version of mergepipe that wrote it");
    }
    read(json);
    return {};
  } catch (const std::exception& e) {
    return Fail(ErrorKind::kBadInput, subject,
                std::string("is not a valid ") + kind.name + ": " + e.what());
  }
}

}  // namespace mergepipe::record
