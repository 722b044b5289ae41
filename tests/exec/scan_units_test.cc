#include "exec/scan_units.h"

#include <gtest/gtest.h>

#include "mergepipe/base/units.h"
#include "support/error_of.h"

namespace mergepipe {
namespace {

BlockSet Blocks(uint64_t size, uint64_t stride) {
  BlockSet blocks(size);
  for (uint64_t b = 0; b < size; b += stride) blocks.Add(BlockIndex(b));
  return blocks;
}

// 1000 blocks of 1 MiB of BF16, and 100 of 2 MiB of F32; of the second tensor every third block.
ScanSlice TwoTensors() {
  ScanSlice slice;
  slice.block_size = kMiB / 2;
  ScanPart part;
  part.elements = 1000 * slice.block_size;
  part.base = {true, DType::kBF16, 0, 0};
  part.experts = {{true, DType::kBF16, 0, 0}, {}, {true, DType::kF32, 0, 0}};
  part.blocks = Blocks(1000, 1);
  slice.parts.push_back(part);
  part.elements = 100 * slice.block_size;
  part.base.dtype = DType::kF32;
  part.experts = {{}, {true, DType::kF16, 0, 0}, {}};
  part.blocks = Blocks(100, 3);
  slice.parts.push_back(part);
  part.experts = {{}, {}, {}};  // nothing of it is read
  slice.parts.push_back(part);
  return slice;
}

void ExpectEveryBlockOnce(const ScanSlice& slice, const ScanUnits& cut) {
  size_t unit = 0;
  for (size_t p = 0; p < 2; ++p) {
    EXPECT_EQ(cut.blocks[p].size(), slice.parts[p].blocks.Count());
    for (const uint64_t block : cut.blocks[p])
      EXPECT_TRUE(slice.parts[p].blocks.Contains(BlockIndex(block)));
    for (uint64_t next = 0; next < cut.blocks[p].size(); ++unit) {
      ASSERT_LT(unit, cut.units.size());
      ASSERT_EQ(cut.units[unit].part, p);
      ASSERT_EQ(cut.units[unit].begin, next);
      ASSERT_GT(cut.units[unit].end, next);
      next = cut.units[unit].end;
    }
  }
  EXPECT_EQ(unit, cut.units.size());
}

TEST(ScanUnits, BuffersOfAllWorkersStayWithinTheLimits) {
  const ScanSlice slice = TwoTensors();
  for (const uint64_t mebibytes : {132u, 136u, 150u, 200u, 300u, 1000u}) {
    for (const int threads : {1, 2, 3, 8, 64}) {
      const auto cut = CutScan(slice, {threads, mebibytes * kMiB});
      ASSERT_TRUE(cut.has_value()) << cut.error().ToString();
      EXPECT_GE(cut->workers, 1);
      EXPECT_LE(cut->workers, threads + 4);
      EXPECT_LE(static_cast<uint64_t>(cut->workers) * cut->buffer_bytes, (mebibytes - 128) * kMiB);
      ExpectEveryBlockOnce(slice, *cut);
    }
  }
  // With memory to spare: all workers, 8 MiB of the base and 16 MiB of an F32 expert.
  const auto ample = CutScan(slice, {8, 1000 * kMiB});
  EXPECT_EQ(ample->computing, 8);
  EXPECT_EQ(ample->workers, 12);
  EXPECT_EQ(ample->buffer_bytes, 24 * kMiB);
  EXPECT_EQ(ample->units[0].end, 8u);
  // With just enough: one worker, one block.
  const auto least = CutScan(slice, {8, 132 * kMiB});
  EXPECT_EQ(least->workers, 1);
  EXPECT_EQ(least->buffer_bytes, 3 * kMiB);
}

TEST(ScanUnits, OneBlockMustFit) {
  const Error error = ErrorOf(CutScan(TwoTensors(), {1, 130 * kMiB}));
  EXPECT_EQ(error.kind(), ErrorKind::kNoSpace);
  EXPECT_NE(error.ToString().find("--memory-mb"), std::string::npos);
  EXPECT_NE(error.ToString().find("give at least 132 MiB"), std::string::npos);
}

}  // namespace
}  // namespace mergepipe
