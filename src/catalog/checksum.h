#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "mergepipe/base/hash.h"

namespace mergepipe {

/// A hash over fields, fed so that no two different sequences of fields give it the same bytes.
class Checksum {
 public:
  Checksum& operator<<(uint64_t number) {
    hasher_.Update(number);
    return *this;
  }
  Checksum& operator<<(std::string_view text) {
    hasher_.Update(uint64_t{text.size()});
    hasher_.Update(text);
    return *this;
  }
  Checksum& operator<<(const Hash128& hash) {
    hasher_.Update(hash);
    return *this;
  }
  std::string ToHex() const { return hasher_.Finish().ToHex(); }

 private:
  Hasher hasher_;
};

}  // namespace mergepipe
