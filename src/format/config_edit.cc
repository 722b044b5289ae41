#include <algorithm>

#include "format/json_visitor.h"
#include "mergepipe/format/output_layout.h"

// The text is edited where the dtype stands, not written anew from a tree: numbers too large for 64
// bits, Python's Infinity, the order and the spacing of whatever else a model keeps there stay as
// they are.

namespace mergepipe {
namespace {

class RootKind : public JsonVisitor {
 public:
  void Value(const JsonPath& path, const JsonValue& value) override {
    if (path.empty()) kind = value.kind;
  }
  void End(const JsonPath&) override {}

  JsonKind kind = JsonKind::kNull;
};

struct Member {
  std::string key;
  size_t value_begin = 0;
  size_t value_end = 0;
};

struct Edit {
  size_t begin = 0;
  size_t end = 0;
  std::string text;
};

// Walks a text that is known to be valid JSON.
class Scanner {
 public:
  Scanner(std::string_view text, size_t position) : text_(text), position_(position) {}

  size_t position() const { return position_; }

  void SkipSpace() {
    position_ = std::min(text_.find_first_not_of(" \t\r\n", position_), text_.size());
  }

  void SkipString() {
    for (++position_; text_[position_] != '"'; ++position_) {
      if (text_[position_] == '\\') ++position_;
    }
    ++position_;
  }

  void SkipValue() {
    size_t depth = 0;
    do {
      const char c = text_[position_];
      if (c == '"') {
        SkipString();
        continue;
      }
      if (c == '{' || c == '[') ++depth;
      if (c == '}' || c == ']') --depth;
      ++position_;
    } while (depth > 0 || !AtValueEnd());
  }

  // The members of the object that starts here.
  std::vector<Member> Members() {
    std::vector<Member> members;
    ++position_;
    for (SkipSpace(); text_[position_] != '}'; SkipSpace()) {
      if (text_[position_] == ',') ++position_;
      SkipSpace();
      const size_t key = position_;
      SkipString();
      const size_t key_end = position_;
      position_ = text_.find(':', position_) + 1;
      SkipSpace();
      const size_t value = position_;
      SkipValue();
      members.push_back({JsonUnquote(text_.substr(key, key_end - key)), value, position_});
    }
    return members;
  }

 private:
  bool AtValueEnd() const {
    return position_ >= text_.size() || text_.find_first_of(",]} \t\r\n", position_) == position_;
  }

  std::string_view text_;
  size_t position_;
};

bool IsDTypeKey(std::string_view key) { return key == "torch_dtype" || key == "dtype"; }

class ConfigEditor {
 public:
  ConfigEditor(std::string_view text, DType dtype)
      : text_(text), value_(JsonQuote(TorchName(dtype))) {}

  std::string Run() {
    Scanner scanner(text_, 0);
    scanner.SkipSpace();
    const size_t open = scanner.position();
    const std::vector<Member> members = scanner.Members();
    bool found = false;
    for (const Member& member : members) {
      found = found || member.key == "torch_dtype";
      if (IsDTypeKey(member.key)) Replace(member);
      if (text_[member.value_begin] == '{' && member.key.ends_with("_config") &&
          member.key != "quantization_config") {
        EditPart(member);
      }
    }
    if (!found) Insert(open, members);
    return Apply();
  }

 private:
  void Replace(const Member& member) {
    edits_.push_back({member.value_begin, member.value_end, value_});
  }

  void EditPart(const Member& part) {
    for (const Member& member : Scanner(text_, part.value_begin).Members()) {
      if (IsDTypeKey(member.key) && text_[member.value_begin] == '"') Replace(member);
    }
  }

  // As the last member, spaced like the first one.
  void Insert(size_t open, const std::vector<Member>& members) {
    const std::string member = "\"torch_dtype\": " + value_;
    if (members.empty()) {
      edits_.push_back({open + 1, open + 1, member});
      return;
    }
    const size_t first_key = text_.find('"', open);
    const std::string space(text_.substr(open + 1, first_key - open - 1));
    const size_t end = members.back().value_end;
    edits_.push_back({end, end, "," + space + member});
  }

  std::string Apply() const {
    std::string result;
    size_t done = 0;
    for (const Edit& edit : edits_) {  // in the order of the text
      result += text_.substr(done, edit.begin - done);
      result += edit.text;
      done = edit.end;
    }
    return result.append(text_.substr(done));
  }

  std::string_view text_;
  std::string value_;
  std::vector<Edit> edits_;
};

}  // namespace

Result<std::string> EditConfig(std::string_view config, DType dtype, const std::string& subject) {
  RootKind root;
  const auto wrong = VisitJson(MaskPythonNumbers(config), root);
  if (wrong || root.kind != JsonKind::kObject) {
    return Fail(ErrorKind::kBadInput, subject, wrong.value_or("not a JSON object"),
                "the file is damaged; fetch it again");
  }
  return ConfigEditor(config, dtype).Run();
}

}  // namespace mergepipe
