#include <gtest/gtest.h>

#include <functional>

#include "mergepipe/manifest/manifest.h"

namespace mergepipe {
namespace {

Hash128 BlockHash(uint64_t tensor, uint64_t block) { return {tensor + 1, block}; }
Hash128 BaseHash(uint64_t tensor, uint64_t block) { return {tensor + 50, block}; }
Hash128 ReadHash(uint64_t tensor, uint64_t expert, uint64_t block) {
  return {100 * (expert + 1) + tensor, block};
}

BlockSet Blocks(uint64_t size, const char* text) { return *BlockSet::FromText(text, size); }

// Two experts; "w" has 10 blocks, "none" is empty, "ids" has 2 blocks and is compared (expert 1
// lacks it).
Plan SmallPlan() {
  Plan plan;
  plan.options.block_size = 4;
  plan.options.strategy.weights = {1, 1};
  plan.experts = {{"e0", {}}, {"e1", {}}};
  const ExpertSource float_source{true, "w", DType::kF32};
  PlannedTensor w{"w",
                  DType::kF32,
                  DType::kBF16,
                  {37},
                  TensorRule::kMerge,
                  "merged",
                  {float_source, float_source},
                  {},
                  1,
                  false};
  w.selected = {Blocks(10, "0-4,9"), BlockSet(10)};
  PlannedTensor none{"none",
                     DType::kF32,
                     DType::kBF16,
                     {0},
                     TensorRule::kMerge,
                     "merged",
                     {float_source, float_source},
                     {BlockSet(0), BlockSet(0)},
                     1,
                     false};
  PlannedTensor ids{"ids",
                    DType::kI64,
                    DType::kI64,
                    {8},
                    TensorRule::kBase,
                    "integer",
                    {{true, "ids", DType::kI64}, {}},
                    {BlockSet(2), BlockSet(2)},
                    1,
                    true};
  plan.tensors = {w, none, ids};
  return plan;
}

OutputLayout SmallLayout() {
  OutputLayout layout;
  layout.files = {{"one.safetensors", "header one", 100}, {"two.safetensors", "header two", 200}};
  layout.tensors = {{"w", DType::kBF16, {37}, 0, 10},
                    {"none", DType::kBF16, {0}, 0, 84},
                    {"ids", DType::kI64, {8}, 1, 10}};
  return layout;
}

PartReport MakePart(const Plan& plan, uint32_t tensor, uint64_t begin, uint64_t end) {
  PartReport part;
  part.tensor = tensor;
  part.begin = begin;
  part.read_hashes.resize(2);
  part.inputs = {{begin, 1}, {2, 3}, {4, 5}};
  part.made = {6, 7};
  part.differs = {0, 0};
  for (uint64_t b = begin; b < end; ++b) {
    part.block_hashes.push_back(BlockHash(tensor, b));
    part.base_hashes.push_back(BaseHash(tensor, b));
    for (size_t k = 0; k < 2; ++k) {
      if (plan.tensors[tensor].selected[k].Contains(BlockIndex(b)))
        part.read_hashes[k].push_back(ReadHash(tensor, k, b));
    }
  }
  return part;
}

// Three ranks, in another order than the blocks.
std::vector<SliceReport> SmallReports(const Plan& plan) {
  std::vector<SliceReport> reports(3);
  for (int r = 0; r < 3; ++r) {
    reports[static_cast<size_t>(r)].rank = r;
    reports[static_cast<size_t>(r)].host = "host" + std::to_string(r);
  }
  reports[0].expert_bytes_read = 1;
  reports[1].compare_bytes_read = 20;
  reports[2].base_bytes_read = 300;
  reports[2].output_bytes_written = 4000;
  reports[0].output_bytes_written = 5;
  reports[1].copied_bytes = 6;
  reports[0].parts = {MakePart(plan, 2, 1, 2), MakePart(plan, 0, 7, 10)};
  reports[1].parts = {MakePart(plan, 0, 3, 7)};
  reports[2].parts = {MakePart(plan, 2, 0, 1), MakePart(plan, 0, 0, 3)};
  reports[2].parts[0].differs = {1, 0};
  return reports;
}

TEST(RecordReports, JoinsThePartsOfAllRanks) {
  const Plan plan = SmallPlan();
  const OutputLayout layout = SmallLayout();
  Manifest manifest;
  const Status status = RecordReports(plan, layout, SmallReports(plan), manifest);
  ASSERT_TRUE(status.has_value()) << status.error().ToString();

  ASSERT_EQ(manifest.tensors.size(), 3u);
  const ManifestTensor& w = manifest.tensors[0];
  std::vector<Hash128> blocks;
  std::vector<Hash128> base;
  std::vector<Hash128> reads;
  for (uint64_t b = 0; b < 10; ++b) base.push_back(BaseHash(0, b));
  for (uint64_t b = 0; b < 10; ++b) blocks.push_back(BlockHash(0, b));
  for (const uint64_t b : {0, 1, 2, 3, 4, 9}) reads.push_back(ReadHash(0, 0, b));
  EXPECT_EQ(w.hash, CombineHashes(blocks));
  EXPECT_EQ(w.base_hash, CombineHashes(base));
  EXPECT_EQ(w.dtype, DType::kBF16);
  EXPECT_EQ(w.blocks, 10u);
  EXPECT_EQ(w.touched_blocks, 6u);
  EXPECT_EQ(w.file, "one.safetensors");
  EXPECT_EQ(w.base_nonfinite, (NonFiniteCount{7 + 3 + 0, 3}));
  EXPECT_EQ(w.made_nonfinite, (NonFiniteCount{18, 21}));
  ASSERT_EQ(w.sources.size(), 1u);  // nothing of expert 1 was read
  EXPECT_EQ(w.sources[0],
            (ManifestSource{0, plan.tensors[0].selected[0], CombineHashes(reads), {6, 9}, false}));

  EXPECT_EQ(manifest.tensors[1].blocks, 0u);
  EXPECT_EQ(manifest.tensors[1].hash, CombineHashes({}));
  EXPECT_TRUE(manifest.tensors[1].sources.empty());

  ASSERT_EQ(manifest.tensors[2].sources.size(), 1u);
  EXPECT_TRUE(manifest.tensors[2].sources[0].differs);
  EXPECT_EQ(manifest.tensors[2].file, "two.safetensors");

  ASSERT_EQ(manifest.files.size(), 2u);
  const std::vector<Hash128> first = {HashText("header one"), manifest.tensors[0].hash,
                                      manifest.tensors[1].hash};
  EXPECT_EQ(manifest.files[0], (ManifestFile{"one.safetensors", 100, CombineHashes(first)}));
  const std::vector<Hash128> second = {HashText("header two"), manifest.tensors[2].hash};
  EXPECT_EQ(manifest.files[1], (ManifestFile{"two.safetensors", 200, CombineHashes(second)}));

  EXPECT_EQ(manifest.io, (IoCounts{20, 1, 300, 4005, 6}));
  ASSERT_EQ(manifest.by_rank.size(), 3u);
  EXPECT_EQ(manifest.by_rank[1], (RankIo{1, "host1", {20, 0, 0, 0, 6}}));
}

TEST(RecordReports, RefusesReportsThatDoNotCoverEveryBlockOnce) {
  using Reports = std::vector<SliceReport>;
  const Plan plan = SmallPlan();
  const std::vector<std::function<void(Reports&)>> defects = {
      [](Reports& r) { r[1].parts.clear(); },     // a gap
      [](Reports& r) { r[0].parts.pop_back(); },  // the end is missing
      [](Reports& r) { r[2].parts.pop_back(); },  // the begin is missing
      [](Reports& r) { r.clear(); },
      [](Reports& r) { r[0].parts.push_back(r[1].parts[0]); },       // twice
      [&](Reports& r) { r[1].parts[0] = MakePart(plan, 0, 2, 7); },  // an overlap
      [](Reports& r) { r[0].parts[1].block_hashes.push_back({}); },  // beyond the end
      [](Reports& r) { r[1].parts[0].begin = 4; },
      [](Reports& r) { r[1].parts[0].base_hashes.pop_back(); },
      [](Reports& r) { r[1].parts[0].read_hashes[0].pop_back(); },
      [](Reports& r) { r[1].parts[0].read_hashes[1].push_back({}); },  // what was not planned
      [](Reports& r) { r[1].parts[0].read_hashes.pop_back(); },
      [](Reports& r) { r[1].parts[0].inputs.pop_back(); },
      [](Reports& r) { r[1].parts[0].differs.clear(); },
      [](Reports& r) { r[1].parts[0].tensor = 2; },
      [](Reports& r) { r[0].parts[1].tensor = 1; },  // blocks of the empty tensor
  };
  for (size_t i = 0; i < defects.size(); ++i) {
    Reports reports = SmallReports(plan);
    defects[i](reports);
    Manifest manifest;
    const Status status = RecordReports(plan, SmallLayout(), reports, manifest);
    ASSERT_FALSE(status.has_value()) << "defect " << i;
    EXPECT_EQ(status.error().kind(), ErrorKind::kInternal);
  }
}

TEST(RecordReports, RefusesPartsOfTensorsThatAreNotInThePlan) {
  const Plan plan = SmallPlan();
  std::vector<SliceReport> reports = SmallReports(plan);
  reports[0].parts.push_back(reports[0].parts[0]);
  reports[0].parts.back().tensor = 99;
  Manifest manifest;
  const Status status = RecordReports(plan, SmallLayout(), reports, manifest);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().kind(), ErrorKind::kInternal);
}

}  // namespace
}  // namespace mergepipe
