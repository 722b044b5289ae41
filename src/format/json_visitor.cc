#include "format/json_visitor.h"

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "format/capped_problems.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

// path_ holds one key for each open container: that of the value being read in it.
class SaxAdapter : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit SaxAdapter(JsonVisitor& visitor) : visitor_(visitor) {}

  const std::string& problem() const { return problem_; }

  bool null() override { return Show({.kind = JsonKind::kNull}); }
  bool boolean(bool value) override { return Show({.kind = JsonKind::kBool, .flag = value}); }
  bool number_integer(number_integer_t) override { return Show({.kind = JsonKind::kOtherNumber}); }
  bool number_unsigned(number_unsigned_t value) override {
    return Show({.kind = JsonKind::kUnsigned, .number = value});
  }
  bool number_float(number_float_t, const string_t&) override {
    return Show({.kind = JsonKind::kOtherNumber});
  }
  bool string(string_t& value) override { return Show({.kind = JsonKind::kString, .text = value}); }
  bool binary(binary_t&) override { return false; }  // JSON text has none

  bool start_object(size_t) override { return Open(JsonKind::kObject); }
  bool start_array(size_t) override { return Open(JsonKind::kArray); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) {
      problem_ = "the key " + QuoteShort(name) + " appears twice in one object";
      return false;
    }
    path_.back() = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    problem_ = "invalid JSON at byte " + std::to_string(position);
    return false;
  }

 private:
  bool Show(const JsonValue& value) {
    visitor_.Value(path_, value);
    return true;
  }

  bool Open(JsonKind kind) {
    if (path_.size() == kMaxJsonDepth) {
      problem_ = "nested more than " + std::to_string(kMaxJsonDepth) + " levels deep";
      return false;
    }
    Show({.kind = kind});
    path_.emplace_back();
    keys_.emplace_back();
    return true;
  }

  bool Close() {
    path_.pop_back();
    keys_.pop_back();
    visitor_.End(path_);
    return true;
  }

  JsonVisitor& visitor_;
  JsonPath path_;
  std::vector<std::unordered_set<std::string>> keys_;
  std::string problem_;
};

bool StartsValue(char last) { return last == ':' || last == ',' || last == '['; }

}  // namespace

std::optional<std::string> VisitJson(std::string_view text, JsonVisitor& visitor) {
  // The library takes a NUL for the end of the text, and would not see what follows it.
  if (text.find('\0') != std::string_view::npos) return "invalid JSON: it holds a NUL byte";
  if (text.starts_with("\xef\xbb\xbf")) return "invalid JSON: it starts with a byte order mark";
  if (!IsUtf8(text)) return "not valid UTF-8";
  SaxAdapter adapter(visitor);
  try {
    if (nlohmann::json::sax_parse(text.begin(), text.end(), &adapter)) return std::nullopt;
  } catch (const nlohmann::json::exception&) {
    return "invalid JSON";
  }
  return adapter.problem().empty() ? "invalid JSON" : adapter.problem();
}

std::string MaskPythonNumbers(std::string_view text) {
  std::string masked(text);
  bool in_string = false;
  char last = '\0';  // the last character that is not a space
  for (size_t i = 0; i < masked.size(); ++i) {
    const char c = masked[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (StartsValue(last)) {
      for (const std::string_view token : {"NaN", "Infinity", "-Infinity"}) {
        if (std::string_view(masked).substr(i, token.size()) != token) continue;
        masked.replace(i, token.size(), "0" + std::string(token.size() - 1, ' '));
        break;
      }
    }
    if (c != ' ' && c != '\n' && c != '\r' && c != '\t') last = c;
  }
  return masked;
}

std::string JsonQuote(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string JsonUnquote(std::string_view quoted) {
  const auto value = nlohmann::json::parse(quoted, nullptr, /*allow_exceptions=*/false);
  return value.is_string() ? value.get<std::string>() : std::string();
}

}  // namespace mergepipe
