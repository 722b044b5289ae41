#include "mergepipe/base/units.h"

#include <gtest/gtest.h>

namespace mergepipe {
namespace {

TEST(Bytes, AdditionSaturates) {
  EXPECT_EQ(Bytes(2) + Bytes(3), Bytes(5));
  EXPECT_EQ(Bytes(UINT64_MAX - 1) + Bytes(1), Bytes::Unlimited());
  EXPECT_EQ(Bytes(UINT64_MAX) + Bytes(1), Bytes::Unlimited());
  EXPECT_EQ(Bytes(uint64_t{1} << 63) + Bytes(uint64_t{1} << 63), Bytes::Unlimited());
  Bytes sum(1);
  sum += Bytes::Unlimited();
  EXPECT_EQ(sum, Bytes::Unlimited());
}

TEST(Bytes, HasOrder) {
  EXPECT_LT(Bytes(1), Bytes(2));
  EXPECT_EQ(Bytes().count(), 0u);
  EXPECT_GT(Bytes::Unlimited(), Bytes(UINT64_MAX - 1));
}

TEST(Index, CountsAndCompares) {
  BlockIndex block(4);
  EXPECT_EQ(++block, BlockIndex(5));
  EXPECT_LT(BlockIndex(5), BlockIndex(6));
  EXPECT_EQ(ExpertIndex().value, 0u);
}

TEST(FormatBytes, ChoosesTheUnit) {
  EXPECT_EQ(FormatBytes(Bytes(0)), "0 B");
  EXPECT_EQ(FormatBytes(Bytes(1023)), "1023 B");
  EXPECT_EQ(FormatBytes(Bytes(1024)), "1.00 KiB");
  EXPECT_EQ(FormatBytes(Bytes(kMiB * 3 / 2)), "1.50 MiB");
  EXPECT_EQ(FormatBytes(Bytes(kMiB * 100)), "100.0 MiB");
  EXPECT_EQ(FormatBytes(Bytes(kMiB << 10)), "1.00 GiB");
  EXPECT_EQ(FormatBytes(Bytes::Unlimited()), "16384.0 PiB");
}

}  // namespace
}  // namespace mergepipe
