#include "mergepipe/kernels/philox.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

namespace mergepipe {
namespace {

// Random123's kat_vectors, philox4x32 10.
TEST(Philox, GivesThePublishedVectors) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(DrawElements, IndexesByElement) {
  const PhiloxKey key = {0x12345678, 0x9abcdef0};
  const uint64_t starts[] = {0, 1, 2, 3, 61, 1000003, (uint64_t{1} << 34) - 5, ~uint64_t{0} - 2000};
  for (const uint64_t first : starts) {
    for (const size_t length : {0, 1, 3, 4, 5, 63, 64, 65, 127, 128, 129, 1000}) {
      std::vector<uint32_t> draws(length + 1, 42);
      DrawElements(key, 3, first, std::span(draws).first(length));
      EXPECT_EQ(draws[length], 42u);
      for (size_t j = 0; j < length; ++j) {
        const uint64_t i = first + j;
        const auto low = static_cast<uint32_t>(i / 4);
        const auto high = static_cast<uint32_t>((i / 4) >> 32);
        ASSERT_EQ(draws[j], Philox({low, high, 3, 0}, key)[i % 4]) << first << ' ' << j;
      }
    }
  }
}

}  // namespace
}  // namespace mergepipe
