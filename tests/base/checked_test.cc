#include "mergepipe/base/checked.h"

#include <gtest/gtest.h>

#include <vector>

namespace mergepipe {
namespace {

TEST(Checked, AddsUpToTheEdge) {
  EXPECT_EQ(CheckedAdd(2, 3), 5u);
  EXPECT_EQ(CheckedAdd(UINT64_MAX, 0), UINT64_MAX);
  EXPECT_EQ(CheckedAdd(UINT64_MAX - 1, 1), UINT64_MAX);
  EXPECT_EQ(CheckedAdd(UINT64_MAX, 1), std::nullopt);
  EXPECT_EQ(CheckedAdd(uint64_t{1} << 63, uint64_t{1} << 63), std::nullopt);
}

TEST(Checked, MultipliesUpToTheEdge) {
  constexpr uint64_t kRoot = uint64_t{1} << 32;
  EXPECT_EQ(CheckedMultiply(6, 7), 42u);
  EXPECT_EQ(CheckedMultiply(UINT64_MAX, 0), 0u);
  EXPECT_EQ(CheckedMultiply(UINT64_MAX, 1), UINT64_MAX);
  EXPECT_EQ(CheckedMultiply(kRoot - 1, kRoot + 1), UINT64_MAX);
  EXPECT_EQ(CheckedMultiply(kRoot, kRoot), std::nullopt);
}

TEST(Checked, ProductOfAShape) {
  const auto product = [](std::vector<uint64_t> shape) { return CheckedProduct(shape); };
  EXPECT_EQ(product({}), 1u);
  EXPECT_EQ(product({3, 4, 5}), 60u);
  EXPECT_EQ(product({0, 7}), 0u);
  EXPECT_EQ(product({uint64_t{1} << 32, uint64_t{1} << 31, 2}), std::nullopt);
  EXPECT_EQ(product({UINT64_MAX, 2, 0}), std::nullopt) << "a 0 must not hide an overflow before it";
  EXPECT_EQ(product({0, UINT64_MAX, 2}), 0u);
}

TEST(Checked, NarrowsOnlyWhatFits) {
  EXPECT_EQ(Narrow<int>(uint64_t{INT32_MAX}), INT32_MAX);
  EXPECT_EQ(Narrow<int>(uint64_t{INT32_MAX} + 1), std::nullopt);
  EXPECT_EQ(Narrow<uint32_t>(-1), std::nullopt);
  EXPECT_EQ(Narrow<int8_t>(-128), -128);
  EXPECT_EQ(Narrow<int64_t>(UINT64_MAX), std::nullopt);
}

TEST(Checked, DividesUpwards) {
  EXPECT_EQ(CeilDivide(0, 4), 0u);
  EXPECT_EQ(CeilDivide(4, 4), 1u);
  EXPECT_EQ(CeilDivide(5, 4), 2u);
  EXPECT_EQ(CeilDivide(UINT64_MAX, 2), uint64_t{1} << 63);
  EXPECT_EQ(CeilDivide(UINT64_MAX, UINT64_MAX), 1u);
}

}  // namespace
}  // namespace mergepipe
