#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mergepipe {

/// Eight bytes, the lowest first, as files and messages have them on every machine.
inline void AppendLittleEndian(uint64_t number, std::string& bytes) {
  for (unsigned shift = 0; shift < 64; shift += 8)
    bytes += static_cast<char>((number >> shift) & 0xff);
}

/// The number in the eight bytes from `at` on, which must be there.
inline uint64_t LittleEndianAt(std::string_view bytes, size_t at) {
  uint64_t number = 0;
  for (size_t i = 0; i < 8; ++i)
    number |= uint64_t{static_cast<unsigned char>(bytes[at + i])} << (i * 8);
  return number;
}

}  // namespace mergepipe
