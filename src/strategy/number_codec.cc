#include "strategy/number_codec.h"

namespace mergepipe {

void PutNumber(uint64_t number, std::string& out) {
  for (; number >= 0x80; number >>= 7) out += static_cast<char>(0x80 | (number & 0x7f));
  out += static_cast<char>(number);
}

std::optional<uint64_t> TakeNumber(std::string_view& bytes) {
  uint64_t number = 0;
  for (uint32_t shift = 0; shift < 64; shift += 7) {
    if (bytes.empty()) return std::nullopt;
    const auto byte = static_cast<unsigned char>(bytes.front());
    bytes.remove_prefix(1);
    const uint64_t part = byte & 0x7f;
    if (part << shift >> shift != part) return std::nullopt;
    number |= part << shift;
    if ((byte & 0x80) == 0) {
      if (byte == 0 && shift > 0) return std::nullopt;
      return number;
    }
  }
  return std::nullopt;
}

bool TakeExactly(uint64_t expected, std::string_view& bytes) {
  return TakeNumber(bytes) == expected;
}

}  // namespace mergepipe
