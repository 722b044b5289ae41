#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace mergepipe {

/// Fields of one message between ranks, each ended by a zero byte: no path has one. Reading past
/// the end gives empty fields and zeros.
class Fields {
 public:
  Fields() = default;
  explicit Fields(std::string text) : text_(std::move(text)) {}

  void Add(std::string_view field) { (text_ += field) += '\0'; }
  void Add(uint64_t number) { Add(std::to_string(number)); }
  std::string Next() {
    const size_t end = std::min(text_.find('\0', at_), text_.size());
    std::string field = text_.substr(at_, end - at_);
    at_ = std::min(end + 1, text_.size());
    return field;
  }
  uint64_t NextNumber() {
    const std::string field = Next();
    uint64_t number = 0;
    std::from_chars(field.data(), field.data() + field.size(), number);
    return number;
  }
  bool AtEnd() const { return at_ >= text_.size(); }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
  size_t at_ = 0;
};

}  // namespace mergepipe
