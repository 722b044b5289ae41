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
  const auto tensor = [](const std::string& name, DType dtype, DType out_dtype, uint64_t elements) {
    PlannedTensor planned;
    planned.name = name;
    planned.dtype = dtype;
    planned.out_dtype = out_dtype;
    planned.shape = {elements};
    const BlockSet none(CeilDivide(elements, 4));
    planned.selected = planned.equal = {none, none};
    planned.energy.resize(2);
    return planned;
  };
  PlannedTensor w = tensor("w", DType::kF32, DType::kBF16, 37);
  w.reason = "merged";
  w.sources = {float_source, float_source};
  w.selected = {Blocks(10, "0-4,9"), BlockSet(10)};
  PlannedTensor none = tensor("none", DType::kF32, DType::kBF16, 0);
  none.reason = "merged";
  none.sources = {float_source, float_source};
  PlannedTensor ids = tensor("ids", DType::kI64, DType::kI64, 8);
  ids.rule = TensorRule::kBase;
  ids.reason = "integer";
  ids.sources = {{true, "ids", DType::kI64}, {}};
  ids.compare = true;
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

// What the ranks of a sparse output report: touched blocks only.
std::vector<SliceReport> SparseReports(const Plan& plan) {
  std::vector<SliceReport> reports = SmallReports(plan);
  for (SliceReport& report : reports) {
    for (PartReport& part : report.parts) {
      const BlockSet touched = plan.tensors[part.tensor].Touched(4);
      std::vector<Hash128> hashes;
      std::vector<Hash128> base;
      for (size_t i = 0; i < part.block_hashes.size(); ++i) {
        if (!touched.Contains(BlockIndex(part.begin + i))) continue;
        hashes.push_back(part.block_hashes[i]);
        base.push_back(part.base_hashes[i]);
      }
      part.block_hashes = hashes;
      part.base_hashes = base;
    }
  }
  return reports;
}

Manifest SparseManifest(const Plan& plan) {
  OutputLayout layout;
  layout.files = {{"sparse.safetensors", "header", 100}};
  layout.tensors = SmallLayout().tensors;
  for (TensorInfo& tensor : layout.tensors) tensor.file = 0;
  Manifest manifest;
  manifest.output = OutputForm::kSparse;
  const Status status = RecordReports(plan, layout, SparseReports(plan), manifest);
  EXPECT_TRUE(status.has_value()) << status.error().ToString();
  return manifest;
}

TEST(RecordReports, OfASparseOutputCoverTheTouchedBlocks) {
  const Plan plan = SmallPlan();
  const Manifest manifest = SparseManifest(plan);
  std::vector<Hash128> blocks;
  std::vector<Hash128> base;
  for (const uint64_t b : {0, 1, 2, 3, 4, 9}) {
    blocks.push_back(BlockHash(0, b));
    base.push_back(BaseHash(0, b));
  }
  const ManifestTensor& w = manifest.tensors[0];
  EXPECT_EQ(w.hash, CombineHashes(blocks));
  EXPECT_EQ(w.base_hash, CombineHashes(base));
  EXPECT_EQ(w.blocks, 10u);
  EXPECT_EQ(w.touched_blocks, 6u);
  EXPECT_EQ(w.file, "sparse.safetensors");
  EXPECT_EQ(w.Touched(), Blocks(10, "0-4,9"));
  EXPECT_EQ(manifest.tensors[2].file, "");
  EXPECT_TRUE(manifest.tensors[2].sources[0].differs);
  const std::vector<Hash128> file = {HashText("header"), w.hash};
  EXPECT_EQ(manifest.files,
            (std::vector<ManifestFile>{{"sparse.safetensors", 100, CombineHashes(file)}}));

  for (const auto& defect : std::vector<std::function<void(std::vector<SliceReport>&)>>{
           [](auto& r) { r[2].parts[1].block_hashes.pop_back(); },
           [](auto& r) { r[0].parts[1].block_hashes.push_back({}); },
           [](auto& r) { r[2].parts[0].block_hashes.push_back({}); },
           [&](auto& r) { r = SmallReports(plan); }}) {
    std::vector<SliceReport> reports = SparseReports(plan);
    defect(reports);
    Manifest other;
    other.output = OutputForm::kSparse;
    EXPECT_FALSE(RecordReports(plan, SmallLayout(), reports, other).has_value());
  }
}

// What the ranks report that take the touched blocks over: no expert was read, and what the sparse
// output counted in touched blocks is not counted again.
std::vector<SliceReport> TakenOverReports(const Plan& plan) {
  std::vector<SliceReport> reports = SmallReports(plan);
  for (SliceReport& report : reports) {
    report.expert_bytes_read = report.compare_bytes_read = 0;
    for (PartReport& part : report.parts) {
      part.read_hashes.clear();
      part.differs.clear();
      part.inputs = {{}};
      part.made = {};
    }
  }
  return reports;
}

TEST(RecordReports, WhatASparseOutputHadIsTakenOver) {
  const Plan plan = SmallPlan();
  const Manifest sparse = SparseManifest(plan);
  Manifest merged;
  ASSERT_TRUE(RecordReports(plan, SmallLayout(), SmallReports(plan), merged).has_value());
  Manifest made;
  const Status status = RecordReports(plan, SmallLayout(), TakenOverReports(plan), made, &sparse);
  ASSERT_TRUE(status.has_value()) << status.error().ToString();
  EXPECT_EQ(made.tensors, merged.tensors);
  EXPECT_EQ(made.files, merged.files);
  EXPECT_EQ(made.io.expert_bytes_read, 0u);
}

TEST(RecordReports, OtherBlocksThanTheSparseOutputsAreRefused) {
  const Plan plan = SmallPlan();
  const Manifest sparse = SparseManifest(plan);
  for (const bool of_base : {false, true}) {
    std::vector<SliceReport> reports = TakenOverReports(plan);
    PartReport& part = reports[0].parts[1];  // blocks 7 to 9, of which 9 is touched
    (of_base ? part.base_hashes : part.block_hashes)[2].low ^= 1;
    Manifest made;
    const Status status = RecordReports(plan, SmallLayout(), reports, made, &sparse);
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().kind(), ErrorKind::kBadInput);
    const std::string subject = of_base ? "base" : "sparse.safetensors";
    EXPECT_EQ(status.error().problems()[0].subject, subject + ": tensor 'w'");
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
