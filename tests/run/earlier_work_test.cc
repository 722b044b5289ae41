#include "run/earlier_work.h"

#include <gtest/gtest.h>

#include "plan/plan_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

// Tensors of 3, 5 and 2 blocks; the first two are merged from both experts, the last has integers.
Plan MakePlan() {
  Family family = MakeFamily(
      {{"a", DType::kBF16, {25}}, {"b", DType::kBF16, {50}}, {"ids", DType::kI32, {20}}}, 2, 10);
  family.rounds = 2;
  return *family.MakePlan();
}

PartReport Report(const Plan& plan, uint32_t tensor, uint64_t begin, uint64_t blocks) {
  PartReport report;
  report.tensor = tensor;
  report.begin = begin;
  report.block_hashes.resize(blocks);
  report.base_hashes.resize(blocks);
  report.inputs.resize(3);
  report.differs.resize(2);
  for (const BlockSet& selected : plan.tensors[tensor].selected) {
    report.read_hashes.emplace_back(
        selected.Within(BlockIndex(begin), BlockIndex(begin + blocks)).Count());
  }
  return report;
}

FinishedUnit Unit(std::vector<PartReport> reports, uint64_t merged = 0) {
  return {std::move(reports), {.merged = merged}};
}

EarlierWork Settle(const Plan& plan, JournalContents contents, bool observes = false,
                   OutputForm form = OutputForm::kFull) {
  return SettleEarlierWork(plan, form, std::move(contents), observes, 2);
}

TEST(EarlierWork, KeepsWhatFits) {
  const Plan plan = MakePlan();
  JournalContents contents;
  contents.units = {Unit({Report(plan, 1, 3, 2)}, 40), Unit({Report(plan, 0, 0, 1)}, 20),
                    Unit({Report(plan, 1, 0, 2), Report(plan, 2, 0, 2)}, 30)};
  contents.begun_bytes = 100;
  const EarlierWork work = Settle(plan, contents);
  EXPECT_EQ(work.done[0].ToText(), "0");
  EXPECT_EQ(work.done[1], *BlockSet::FromText("0-1,3-4", 5));
  EXPECT_EQ(work.done[2].ToText(), "0-1");
  EXPECT_EQ(work.moved.merged, 90u);
  EXPECT_EQ(work.lost_bytes, 10u);
  ASSERT_EQ(work.reports.size(), 4u);
  EXPECT_EQ(work.ReportsIn({1, BlockIndex(0), BlockIndex(5)}).size(), 2u);
  EXPECT_EQ(work.ReportsIn({1, BlockIndex(1), BlockIndex(4)}).size(), 1u);
  EXPECT_EQ(work.ReportsIn({1, BlockIndex(1), BlockIndex(4)})[0].begin, 3u);
  EXPECT_EQ(work.ReportsIn({2, BlockIndex(1), BlockIndex(2)}).size(), 0u);
}

// Whatever the records say, no index is out of range, and no block is done twice.
TEST(EarlierWork, RefusesWhatDoesNotFit) {
  const Plan plan = MakePlan();
  const auto expect_refused = [&](PartReport report) {
    JournalContents contents;
    contents.units = {Unit({Report(plan, 0, 1, 1)}, 5), Unit({Report(plan, 1, 0, 1), report}, 7)};
    contents.begun_bytes = 12;
    const EarlierWork work = Settle(plan, contents);
    EXPECT_EQ(work.done[0].ToText(), "1");
    EXPECT_TRUE(work.done[1].Empty());
    EXPECT_EQ(work.reports.size(), 1u);
    EXPECT_EQ(work.lost_bytes, 7u);
  };
  PartReport report = Report(plan, 1, 1, 2);
  report.tensor = 3;
  expect_refused(report);
  report = Report(plan, 1, 1, 2);
  report.begin = 4;  // one too many
  expect_refused(report);
  report.begin = UINT64_MAX;
  expect_refused(report);
  expect_refused(Report(plan, 0, 0, 2));  // block 1 is done already
  expect_refused(Report(plan, 1, 0, 2));  // block 0 is done in the same unit
  report = Report(plan, 1, 1, 2);
  report.block_hashes.clear();
  report.base_hashes.clear();
  expect_refused(report);
  report = Report(plan, 1, 1, 2);
  report.base_hashes.pop_back();
  expect_refused(report);
  report = Report(plan, 1, 1, 2);
  report.read_hashes[1].pop_back();
  expect_refused(report);
  report = Report(plan, 1, 1, 2);
  report.read_hashes.pop_back();
  expect_refused(report);
  report = Report(plan, 1, 1, 2);
  report.inputs.pop_back();
  expect_refused(report);
  report = Report(plan, 1, 1, 2);
  report.differs.pop_back();
  expect_refused(report);
}

TEST(EarlierWork, ATensorWhoseRoundsAreNotOverIsMadeWhole) {
  const Plan plan = MakePlan();
  JournalContents contents;
  contents.units = {Unit({Report(plan, 0, 0, 3)}), Unit({Report(plan, 1, 0, 2)}),
                    Unit({Report(plan, 2, 0, 1)})};
  const EarlierWork without = Settle(plan, contents, true);
  EXPECT_EQ(without.done[0].ToText(), "0-2");  // complete: nothing is left to observe
  EXPECT_TRUE(without.done[1].Empty());
  EXPECT_EQ(without.done[2].ToText(), "0");  // integers are not observed
  EXPECT_EQ(without.reports.size(), 2u);
  EXPECT_TRUE(without.ReportsIn({1, BlockIndex(0), BlockIndex(5)}).empty());

  contents.rounds = {{1, "known", 11}, {9, "no tensor", 5}};
  contents.begun_bytes = 16;
  const EarlierWork with = Settle(plan, contents, true);
  EXPECT_EQ(with.done[1].ToText(), "0-1");
  EXPECT_EQ(with.conclusions[1], "known");
  EXPECT_EQ(with.moved.merged, 11u);
  EXPECT_EQ(with.lost_bytes, 5u);
}

// A unit's bytes cannot be told apart by its reports.
TEST(EarlierWork, AUnitIsDroppedAsAWhole) {
  const Plan plan = MakePlan();
  JournalContents contents;
  contents.units = {Unit({Report(plan, 0, 0, 2)}, 20),
                    Unit({Report(plan, 0, 2, 1), Report(plan, 1, 0, 2)}, 30),
                    Unit({Report(plan, 2, 0, 2)}, 7)};
  contents.begun_bytes = 57;
  const EarlierWork work = Settle(plan, contents, true);
  EXPECT_TRUE(work.done[0].Empty());
  EXPECT_TRUE(work.done[1].Empty());
  EXPECT_EQ(work.done[2].ToText(), "0-1");
  EXPECT_EQ(work.moved.merged, 7u);
  EXPECT_EQ(work.lost_bytes, 50u);
}

TEST(EarlierWork, ASparseOutputIsCompleteWithItsTouchedBlocks) {
  Plan plan = MakePlan();
  for (BlockSet& selected : plan.tensors[1].selected) selected = *BlockSet::FromText("1,3", 5);
  JournalContents contents;
  contents.units = {Unit({Report(plan, 1, 1, 1)}, 20), Unit({Report(plan, 1, 2, 1)}, 5),
                    Unit({Report(plan, 1, 3, 1)}, 30), Unit({Report(plan, 0, 0, 1)}, 10)};
  contents.begun_bytes = 65;
  const EarlierWork work = Settle(plan, contents, true, OutputForm::kSparse);
  EXPECT_TRUE(work.done[0].Empty());
  EXPECT_EQ(work.done[1].ToText(), "0-4");
  EXPECT_EQ(work.reports.size(), 2u);  // not the one of a block that is not in the output
  EXPECT_EQ(work.moved.merged, 50u);
  EXPECT_EQ(work.lost_bytes, 15u);
}

}  // namespace
}  // namespace mergepipe
