#include "mergepipe/manifest/record_diff.h"

#include <algorithm>
#include <map>

#include "mergepipe/plan/record_json.h"

namespace mergepipe {
namespace {

using record::Json;

constexpr size_t kMaxValueLength = 60;

std::string Show(const Json& value) {
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() <= kMaxValueLength ? text : text.substr(0, kMaxValueLength) + "...";
}

bool IsNamedList(const Json& json) {
  return json.is_array() && !json.empty() &&
         std::all_of(json.begin(), json.end(), [](const Json& item) {
           return item.is_object() && item.contains("name") && item["name"].is_string();
         });
}

// Children by name: an object's members, a list's entries by their name or position.
std::map<std::string, const Json*> Children(const Json& json) {
  std::map<std::string, const Json*> children;
  if (json.is_object()) {
    for (const auto& [key, value] : json.items()) children.emplace(key, &value);
  } else if (json.is_array()) {
    const bool named = IsNamedList(json);
    for (size_t i = 0; i < json.size(); ++i) {
      children.emplace(named ? json[i]["name"].get<std::string>() : std::to_string(i), &json[i]);
    }
  }
  return children;
}

void Compare(const std::string& path, const Json& a, const Json& b,
             std::vector<std::string>& lines) {
  if (a == b) return;
  if (a.type() != b.type() || !a.is_structured()) {
    lines.push_back(path + ": " + Show(a) + " -> " + Show(b));
    return;
  }
  const auto children_a = Children(a);
  const auto children_b = Children(b);
  const std::string prefix = path.empty() ? "" : path + "/";
  for (const auto& [name, child] : children_a) {
    const auto other = children_b.find(name);
    if (other == children_b.end()) {
      lines.push_back(prefix + name + ": " + Show(*child) + " -> (absent)");
    } else {
      Compare(prefix + name, *child, *other->second, lines);
    }
  }
  for (const auto& [name, child] : children_b) {
    if (!children_a.contains(name))
      lines.push_back(prefix + name + ": (absent) -> " + Show(*child));
  }
}

Result<Json> Parse(const std::string& text, const std::string& subject) {
  if (record::TooDeep(text)) {
    return Fail(ErrorKind::kBadInput, subject, "is nested too deeply",
                "give records that mergepipe wrote");
  }
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) return json;
  return Fail(ErrorKind::kBadInput, subject, "is not a JSON record",
              "give two plans, two manifests, two runs or two checkpoints");
}

}  // namespace

Result<std::vector<std::string>> CompareRecords(const std::string& a, const std::string& subject_a,
                                                const std::string& b,
                                                const std::string& subject_b) {
  MERGEPIPE_ASSIGN_OR_RETURN(const Json json_a, Parse(a, subject_a));
  MERGEPIPE_ASSIGN_OR_RETURN(const Json json_b, Parse(b, subject_b));
  std::vector<std::string> lines;
  Compare("", json_a, json_b, lines);
  return lines;
}

}  // namespace mergepipe
