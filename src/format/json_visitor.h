#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// \file
/// JSON read as a stream of values, so that a file of 100 MB needs no tree of it in memory. The one
/// place that parses JSON in this layer; the parser's exceptions stop here.
namespace mergepipe {

enum class JsonKind {
  kNull,
  kBool,
  kUnsigned,     ///< written as digits only, and fits 64 bits
  kOtherNumber,  ///< -1, -0, 1.0, 1e3, 18446744073709551616
  kString,
  kObject,
  kArray,
};

struct JsonValue {
  JsonKind kind = JsonKind::kNull;
  bool flag = false;           ///< of kBool
  uint64_t number = 0;         ///< of kUnsigned
  std::string_view text = {};  ///< of kString; valid during the call only
};

/// The keys that lead to a value, outermost first; an element of an array has the key "". Empty for
/// the document itself.
using JsonPath = std::vector<std::string>;

class JsonVisitor {
 public:
  virtual ~JsonVisitor() = default;
  /// A value, in document order. Of an object or array this is its start.
  virtual void Value(const JsonPath& path, const JsonValue& value) = 0;
  /// The object or array at `path` is complete.
  virtual void End(const JsonPath& path) = 0;
};

/// Objects and arrays within one another.
inline constexpr size_t kMaxJsonDepth = 64;

/// Shows all of `text`, which must be one JSON document in UTF-8, to `visitor`. Gives what is wrong
/// with the text (no JSON, not UTF-8, a key twice in one object, nested too deep), or nothing. The
/// visitor may have seen values before that was noticed.
std::optional<std::string> VisitJson(std::string_view text, JsonVisitor& visitor);

/// `text` with the NaN, Infinity and -Infinity that Python's json module writes replaced by a 0 and
/// spaces of the same length. Transformers writes them into config.json (`time_step_limit` of
/// Mamba2, for one).
std::string MaskPythonNumbers(std::string_view text);

/// `text` as a JSON string, quotes included. It must be UTF-8.
std::string JsonQuote(std::string_view text);
/// The text of a valid JSON string, quotes included.
std::string JsonUnquote(std::string_view quoted);

}  // namespace mergepipe
