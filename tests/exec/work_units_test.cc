#include "exec/work_units.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "exec/memory_plan.h"

namespace mergepipe {
namespace {

constexpr uint64_t kBlock = 1000;

// Blocks [begin, end) of a BF16 tensor of `blocks` blocks, the last one short; every third is
// touched by the only expert.
TensorPart Part(uint32_t tensor, uint64_t blocks, uint64_t begin, uint64_t end) {
  TensorPart part;
  part.tensor = tensor;
  part.name = "t" + std::to_string(tensor);
  part.elements = blocks * kBlock - 1;
  part.begin = begin;
  part.end = end;
  part.merge = true;
  part.base = {true, DType::kBF16, 0, 0};
  part.out_dtype = DType::kBF16;
  part.touched = BlockSet(blocks);
  for (uint64_t block = begin; block < end; ++block) {
    if (block % 3 == 0) part.touched.Add(BlockIndex(block));
  }
  part.experts = {{true, DType::kBF16, 0, 0}};
  part.selected = {part.touched};
  part.selected_elements = {part.touched.Count() * kBlock};
  return part;
}

Slice SliceOf(std::vector<TensorPart> parts) {
  Slice slice;
  slice.block_size = kBlock;
  slice.strategy.name = "ties";
  slice.strategy.weights = {1};
  slice.expert_files = {{}};
  slice.parts = std::move(parts);
  return slice;
}

std::unique_ptr<Strategy> Ties() {
  StrategyOptions options;
  options.name = "ties";
  options.density = 0.5;
  options.weights = {1};
  return (*FindStrategy("ties"))->make(options);
}

// Every block that is to be visited is in one unit, with its place; pieces count their blocks on.
void ExpectEveryBlockOnce(const Slice& slice, const WorkUnits& work) {
  std::map<size_t, std::map<uint64_t, uint64_t>> positions;
  for (const WorkUnit& unit : work.units) {
    size_t first = 0;
    for (const UnitPiece& piece : unit.pieces) {
      EXPECT_EQ(piece.first_block, first);
      first += piece.blocks.size();
      ASSERT_EQ(piece.blocks.size(), piece.positions.size());
      for (size_t i = 0; i < piece.blocks.size(); ++i)
        EXPECT_TRUE(positions[piece.part].emplace(piece.blocks[i], piece.positions[i]).second);
    }
    EXPECT_EQ(unit.blocks(), first);
  }
  for (size_t p = 0; p < slice.parts.size(); ++p) {
    const TensorPart& part = slice.parts[p];
    uint64_t position = 0;
    for (uint64_t block = part.begin; block < part.end; ++block) {
      const bool touched = part.touched.Contains(BlockIndex(block));
      if (slice.form == OutputForm::kSparse && !touched) continue;
      ASSERT_TRUE(positions[p].contains(block)) << p << " " << block;
      EXPECT_EQ(positions[p][block], position++);
      positions[p].erase(block);
    }
    EXPECT_TRUE(positions[p].empty());
  }
}

TEST(WorkUnits, HaveEveryBlockOnce) {
  for (const OutputForm form : {OutputForm::kFull, OutputForm::kSparse}) {
    for (const uint64_t target : {uint64_t{1}, 4 * kBlock, 50 * kBlock, uint64_t{1} << 30}) {
      Slice slice = SliceOf({Part(0, 1, 0, 1), Part(1, 100, 0, 100), Part(2, 3, 0, 3),
                             Part(3, 7, 0, 7), Part(4, 90, 11, 80)});
      slice.form = form;
      slice.parts[3].reads = 3;
      slice.parts[4].last_rank = 1;
      ExpectEveryBlockOnce(slice, CutIntoUnits(slice, *Ties(), target));
    }
  }
}

TEST(WorkUnits, SmallPartsAreMadeTogether) {
  const Slice slice = SliceOf({Part(0, 1, 0, 1), Part(1, 2, 0, 2), Part(2, 3, 0, 3)});
  const WorkUnits work = CutIntoUnits(slice, *Ties(), 100 * kBlock);
  ASSERT_EQ(work.units.size(), 1u);
  EXPECT_EQ(work.units[0].pieces.size(), 3u);
  EXPECT_TRUE(work.jobs.empty());
}

// What has to be seen whole before any of it is made: its touched blocks alone wait for that.
TEST(WorkUnits, AJobHasTheTouchedBlocksOfALargePart) {
  const Slice slice = SliceOf({Part(0, 100, 0, 100)});
  const WorkUnits work = CutIntoUnits(slice, *Ties(), 20 * kBlock);
  ASSERT_EQ(work.jobs.size(), 1u);
  std::set<uint64_t> waiting;
  for (size_t u = 0; u < work.units.size(); ++u) {
    const bool of_job = u >= work.jobs[0].begin && u < work.jobs[0].end;
    EXPECT_EQ(work.units[u].job.has_value(), of_job);
    for (const uint64_t block : work.units[u].pieces.at(0).blocks) {
      EXPECT_EQ(of_job, block % 3 == 0);
      if (of_job) waiting.insert(block);
    }
  }
  EXPECT_EQ(waiting.size(), 34u);
}

// Other ranks wait for these.
TEST(WorkUnits, SharedJobsComeFirstEvenOrdinalsBeforeOdd) {
  std::vector<TensorPart> parts = {Part(0, 90, 60, 90), Part(1, 50, 0, 50), Part(2, 90, 0, 30)};
  parts[0].last_rank = 1;
  parts[0].shared_ordinal = 7;
  parts[2].first_rank = 1;
  parts[2].last_rank = 2;
  parts[2].shared_ordinal = 8;
  const WorkUnits work = CutIntoUnits(SliceOf(std::move(parts)), *Ties(), 4 * kBlock);
  ASSERT_EQ(work.jobs.size(), 3u);
  EXPECT_EQ(work.jobs[0].part, 2u);
  EXPECT_EQ(work.jobs[1].part, 0u);
  EXPECT_EQ(work.jobs[2].part, 1u);
}

// A rank takes part in the exchange for a shared tensor even if it reads nothing of it.
TEST(WorkUnits, ASharedPartWithoutTouchedBlocksIsAJobWithoutUnits) {
  TensorPart part = Part(0, 90, 0, 30);
  part.last_rank = 1;
  part.touched = BlockSet(90);
  part.selected = {part.touched};
  const WorkUnits work = CutIntoUnits(SliceOf({part}), *Ties(), 4 * kBlock);
  ASSERT_EQ(work.jobs.size(), 1u);
  EXPECT_EQ(work.jobs[0].begin, work.jobs[0].end);
  EXPECT_FALSE(work.units.empty());
}

TEST(WorkUnits, KnownBlocksOfTheBaseTakeNoMemory) {
  TensorPart part = Part(0, 9, 0, 9);
  part.known_base_hashes.assign(9, Hash128{1, 2});
  Slice slice = SliceOf({part});
  slice.copies_known_blocks = true;
  const auto base_bytes = [&] {
    uint64_t bytes = 0;
    for (const WorkUnit& unit : CutIntoUnits(slice, *Ties(), 1).units)
      bytes += BytesOf(slice, unit).base;
    return bytes;
  };
  EXPECT_EQ(base_bytes(), 3 * kBlock * 2);
  slice.parts[0].known_base_hashes[1] = {};
  EXPECT_EQ(base_bytes(), 4 * kBlock * 2);
  // Nor where they are looked at, changed, or cannot be copied.
  const uint64_t all = (9 * kBlock - 1) * 2;
  slice.allow_nonfinite = true;
  EXPECT_EQ(base_bytes(), all);
  slice.allow_nonfinite = false;
  slice.copies_known_blocks = false;
  EXPECT_EQ(base_bytes(), all);
  slice.copies_known_blocks = true;
  slice.parts[0].out_dtype = DType::kF32;
  EXPECT_EQ(base_bytes(), all);
}

// With any memory that is accepted, what is held at a time fits.
TEST(MemoryPlan, FitsWhatItAccepts) {
  Slice slice = SliceOf({Part(0, 400, 0, 400), Part(1, 3, 0, 3), Part(2, 5000, 0, 5000)});
  slice.block_size = 100'000;
  for (TensorPart& part : slice.parts) part.elements *= 100;
  const auto ties = Ties();
  int accepted = 0;
  for (uint64_t mebibytes = 129; mebibytes < 3000; mebibytes = mebibytes * 11 / 10 + 1) {
    for (const int threads : {1, 2, 16}) {
      const auto plan = PlanMemory(slice, *ties, {threads, mebibytes * kMiB});
      if (!plan) continue;
      ++accepted;
      EXPECT_GE(plan->computing, 1);
      EXPECT_LE(plan->computing, threads);
      EXPECT_LE(plan->unit_bytes + plan->passing_bytes, (mebibytes - 128) * kMiB);
      ExpectEveryBlockOnce(slice, plan->work);
    }
  }
  EXPECT_GT(accepted, 20);
}

}  // namespace
}  // namespace mergepipe
