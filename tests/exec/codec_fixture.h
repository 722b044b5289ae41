#pragma once

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <string>
#include <vector>

#include "mergepipe/base/error.h"

/// \file
/// What becomes of damaged bytes that should be a message between ranks.
namespace mergepipe::test {

/// Every truncation and an addition are refused.
template <typename Parse>
void ExpectRefused(const std::string& bytes, Parse parse) {
  std::vector<std::string> damaged = {bytes + "x"};
  for (size_t length = 0; length < bytes.size(); ++length)
    damaged.push_back(bytes.substr(0, length));
  for (const std::string& text : damaged) {
    const auto parsed = parse(text);
    ASSERT_FALSE(parsed.has_value()) << text.size() << " of " << bytes.size() << " bytes";
    ASSERT_EQ(parsed.error().kind(), ErrorKind::kInternal);
  }
}

/// Whatever is parsed from flipped bits is refused, or is of its own bytes' size.
template <typename Parse, typename Serialize>
void ExpectSurvived(std::string bytes, Parse parse, Serialize serialize) {
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    const auto flip = [&] {
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    };
    flip();
    const auto parsed = parse(bytes);
    // The first byte is the byte order, in which Cereal takes more than one value.
    if (parsed && bit >= 8) {
      ASSERT_EQ(serialize(*parsed).size(), bytes.size()) << bit;
    }
    flip();
  }
}

inline uint64_t PeakMemory() {
  rusage usage{};
  EXPECT_EQ(getrusage(RUSAGE_SELF, &usage), 0);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

/// That no more than `limit` bytes came on top of `before`. AddressSanitizer keeps what was freed,
/// so the peak says nothing there.
inline void ExpectMemoryWithin(uint64_t before, uint64_t limit) {
#ifndef __SANITIZE_ADDRESS__
  EXPECT_LT(PeakMemory() - before, limit);
#else
  static_cast<void>(before);
  static_cast<void>(limit);
#endif
}

}  // namespace mergepipe::test
