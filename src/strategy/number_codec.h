#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mergepipe {

/// LEB128 of at most 64 bits.
void PutNumber(uint64_t number, std::string& out);

/// Takes a number off the front; nothing if it is cut, too long or not in its shortest form, so
/// that equal statistics have equal bytes.
std::optional<uint64_t> TakeNumber(std::string_view& bytes);

/// Whether the number at the front is `expected`.
bool TakeExactly(uint64_t expected, std::string_view& bytes);

}  // namespace mergepipe
