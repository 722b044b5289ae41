#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mergepipe {

/// `text` with control characters written as \n, \t or \xNN, so that it stays on one line whatever
/// a file's header put into a name.
std::string EscapeControl(std::string_view text);
/// 'text' in single quotes, control characters escaped.
std::string Quote(std::string_view text);
/// "a, b, c" (at most `limit` entries, then "and N more").
std::string JoinNames(std::span<const std::string> names, size_t limit = 8);
/// "[2, 3]".
std::string FormatShape(std::span<const uint64_t> shape);
/// Whether `text` is well-formed UTF-8 (no overlong forms, no surrogates).
bool IsUtf8(std::string_view text);

}  // namespace mergepipe
