#include "cli/plan_summary.h"

#include <gtest/gtest.h>

#include "cli/render.h"

namespace mergepipe {
namespace {

TEST(KindOfTensor, LeavesOutTheLayerAndTheExpert) {
  EXPECT_EQ(KindOfTensor("model.layers.3.self_attn.q_proj.weight"), "self_attn.q_proj.weight");
  EXPECT_EQ(KindOfTensor("model.layers.3.mlp.experts.17.w1.weight"), "mlp.experts.*.w1.weight");
  EXPECT_EQ(KindOfTensor("layers.0.1.22"), "*.*");
  EXPECT_EQ(KindOfTensor("model.norm.weight"), "model.norm.weight");
  EXPECT_EQ(KindOfTensor("h.5"), "h.5");
}

TEST(EnergyText, IsADashWhereThereIsNoShare) {
  SummaryRow row;
  EXPECT_EQ(row.EnergyText(), "-");
  row.energy = {4, 3};
  EXPECT_EQ(row.EnergyText(), "75.0 %");
  row.energy_known = false;
  EXPECT_EQ(row.EnergyText(), "-");
}

TEST(RangesText, StopsAfterEightRanges) {
  BlockSet blocks(100);
  EXPECT_EQ(RangesText(blocks), "");
  for (const uint64_t b : {0, 1, 2, 5}) blocks.Add(BlockIndex(b));
  EXPECT_EQ(RangesText(blocks), "0-2,5");
  for (uint64_t b = 10; b < 30; b += 2) blocks.Add(BlockIndex(b));
  EXPECT_EQ(RangesText(blocks), "0-2,5,10,12,14,16,18,20,...");
}

}  // namespace
}  // namespace mergepipe
