// A catalog that was damaged or lost, made again from what is left.

#include "mergepipe/run/recover.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "mergepipe/catalog/catalog.h"
#include "mergepipe/run/demo.h"
#include "mergepipe/run/merge.h"
#include "mergepipe/run/records.h"
#include "support/error_of.h"
#include "support/temporary_directory.h"

namespace mergepipe {
namespace {

using Found = RecoverOutcome::Found;

std::string ReadBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

std::vector<std::string> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<BlockStatistics> MakeBlocks(uint32_t tensor) {
  std::vector<BlockStatistics> blocks(500);
  for (size_t i = 0; i < blocks.size(); ++i) {
    blocks[i].sum_squares = static_cast<double>(i) + 0.5;
    blocks[i].hash = {tensor, i};
  }
  return blocks;
}

/// Two merges of a tiny family, with statistics of one expert.
class RecoverTest : public testing::Test {
 protected:
  RecoverTest() : catalog_(directory_ / "db/catalog.sqlite"), runs_(directory_ / "runs") {
    std::filesystem::create_directory(directory_ / "db");
    DemoOptions demo;
    demo.directory = directory_ / "demo";
    family_ = MakeDemoFamily(files_, demo).value();
    run_a_ = Merge("a");
    run_b_ = Merge("b");
    const auto catalog = Catalog::Open(catalog_).value();
    const auto base = catalog->FindModel(id_.base).value();
    const auto expert = catalog->FindModel(id_.expert).value();
    StatisticsBatch batch{{{id_, {}}}, {}, 0, {}, {&*base, &*expert}};
    for (uint32_t t = 0; t < 10; ++t) batch.sets[0].tensors.push_back({t, MakeBlocks(t)});
    EXPECT_TRUE(catalog->PutStatistics(batch).has_value());
  }

  std::string Merge(const std::string& out) {
    MergeOptions options;
    options.inputs = {catalog_, family_.base, family_.experts};
    options.target.directory = directory_ / out;
    options.target.runs_directory = runs_;
    options.plan.strategy.name = "avg";
    options.plan.scoring = "uniform";  // no probe: the statistics are those put above
    options.plan.strategy.weights = {1, out == "a" ? 1.0 : 2.0};
    options.limits.memory_bytes = uint64_t{1} << 30;
    const auto communicator = LocalCommunicator();
    const auto outcome = RunMerge(files_, *communicator, options);
    EXPECT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
    return outcome ? outcome->run_id : "";
  }

  Result<RecoverOutcome> Recover(bool apply = true) {
    return RecoverCatalog(files_, {catalog_, runs_, apply});
  }

  /// Flips a bit of every place where the catalog has `text`.
  void Damage(const std::string& text) {
    std::string bytes = ReadBytes(catalog_);
    size_t places = 0;
    for (size_t at = bytes.find(text); at != std::string::npos; at = bytes.find(text, at + 1)) {
      bytes[at + text.size() - 1] = static_cast<char>(bytes[at + text.size() - 1] ^ 1);
      ++places;
    }
    EXPECT_GT(places, 0u) << text;
    WriteBytes(catalog_, bytes);
  }

  /// What the catalog has of the hash of one block of one tensor.
  static std::string HashInFile(char tensor, char block) {
    const std::string zeros(7, '\0');
    return std::string(1, tensor) + zeros + block + zeros;
  }

  /// A tensor's statistics, the second expert, and the first run.
  void DamageSome() {
    Damage(HashInFile(4, 77));
    Damage(family_.experts[1]);
    Damage(run_a_);
  }

  void ExpectRunsThere() {
    const auto catalog = Catalog::Open(catalog_).value();
    EXPECT_TRUE(catalog->CheckIntegrity().has_value());
    auto runs = catalog->RunIds().value();  // in any order: both may have ended in one second
    std::sort(runs.begin(), runs.end());
    EXPECT_EQ(runs, (std::vector<std::string>{run_a_, run_b_}));
    for (const std::string& run : {run_a_, run_b_}) {
      const auto record = catalog->FindRun(run).value();
      ASSERT_TRUE(record.has_value());
      EXPECT_TRUE(catalog->FindPlan(record->plan_id).value().has_value());
      EXPECT_TRUE(LoadRun(files_, {catalog_, "/nowhere"}, run).has_value());
    }
  }

  FileSystem& files_ = PosixFileSystem();
  TemporaryDirectory directory_;
  std::string catalog_;
  std::string runs_;
  DemoFamily family_;
  std::string run_a_;
  std::string run_b_;
  StatisticsId id_ = {"base", "expert_1", 640000, 0};
};

TEST_F(RecoverTest, AWholeOneStaysAsItIs) {
  const std::string before = ReadBytes(catalog_);
  for (const bool apply : {false, true}) {
    const auto outcome = Recover(apply);
    ASSERT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
    EXPECT_EQ(outcome->found, Found::kWhole);
    EXPECT_FALSE(outcome->Changes());
    EXPECT_TRUE(outcome->old_file.empty());
    EXPECT_EQ(ReadBytes(catalog_), before);
  }
  EXPECT_EQ(NamesIn(directory_ / "db"), std::vector<std::string>{"catalog.sqlite"});
}

TEST_F(RecoverTest, KeepsWhatIsWholeAndTakesRunsFromTheirFolders) {
  DamageSome();
  const std::string damaged = ReadBytes(catalog_);
  EXPECT_FALSE(Catalog::Open(catalog_).value()->CheckIntegrity().has_value());

  const auto outcome = Recover();
  ASSERT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
  EXPECT_EQ(outcome->found, Found::kDamaged);
  EXPECT_FALSE(outcome->damage.empty());
  EXPECT_EQ(outcome->models, 4u);  // base, expert_1 and two outputs
  EXPECT_EQ(outcome->statistics, 9u);
  EXPECT_EQ(outcome->plans, 2u);
  EXPECT_EQ(outcome->runs, 1u);
  EXPECT_EQ(outcome->added_runs, std::vector<std::string>{run_a_});
  EXPECT_TRUE(outcome->added_plans.empty());
  EXPECT_TRUE(outcome->left_out_runs.empty());
  EXPECT_NE(std::find(outcome->lost.begin(), outcome->lost.end(), "model 'expert_2'"),
            outcome->lost.end());

  ExpectRunsThere();
  const auto catalog = Catalog::Open(catalog_).value();
  EXPECT_EQ(catalog->ModelIds().value(), (std::vector<std::string>{"a", "b", "base", "expert_1"}));
  EXPECT_EQ(catalog->ReadStatistics(id_, 3).value(), MakeBlocks(3));
  EXPECT_EQ(catalog->ReadStatistics(id_, 4).value(), std::nullopt);
  EXPECT_EQ(ReadBytes(outcome->old_file), damaged);
  EXPECT_EQ(outcome->old_file.find(catalog_ + ".damaged-"), 0u);
  EXPECT_EQ(NamesIn(directory_ / "db").size(), 2u);

  const auto again = Recover();
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->found, Found::kWhole);
  EXPECT_FALSE(again->Changes());
}

TEST_F(RecoverTest, LookingChangesNothingAndTellsTheSame) {
  DamageSome();
  const std::string damaged = ReadBytes(catalog_);
  const auto look = Recover(false);
  ASSERT_TRUE(look.has_value()) << ErrorOf(look).ToString();
  EXPECT_EQ(ReadBytes(catalog_), damaged);
  EXPECT_EQ(NamesIn(directory_ / "db"), std::vector<std::string>{"catalog.sqlite"});
  EXPECT_TRUE(look->old_file.empty());
  const auto done = Recover();
  EXPECT_EQ(look->lost, done->lost);
  EXPECT_EQ(look->added_runs, done->added_runs);
  EXPECT_EQ(look->statistics, done->statistics);
  EXPECT_EQ(look->damage, done->damage);
}

TEST_F(RecoverTest, ManyPagesOverwritten) {
  const std::string good = ReadBytes(catalog_);
  for (size_t page = 1; page < good.size() / 4096; page += 11) {
    SCOPED_TRACE(page);
    std::string bad = good;
    bad.replace(page * 4096, 4096, 4096, '\xff');
    WriteBytes(catalog_, bad);
    const auto outcome = Recover();
    ASSERT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
    EXPECT_EQ(outcome->found, Found::kDamaged);
    EXPECT_EQ(ReadBytes(outcome->old_file), bad);
    ExpectRunsThere();
    std::filesystem::remove(outcome->old_file);
  }
}

TEST_F(RecoverTest, ALostOneIsMadeOfTheRunFolders) {
  std::filesystem::remove(catalog_);
  const auto look = Recover(false);
  ASSERT_TRUE(look.has_value()) << ErrorOf(look).ToString();
  EXPECT_EQ(look->added_runs, (std::vector<std::string>{run_a_, run_b_}));
  EXPECT_TRUE(NamesIn(directory_ / "db").empty());
  const auto outcome = Recover();
  ASSERT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
  EXPECT_EQ(outcome->found, Found::kAbsent);
  EXPECT_EQ(outcome->added_runs, (std::vector<std::string>{run_a_, run_b_}));
  EXPECT_EQ(outcome->added_plans.size(), 2u);
  ExpectRunsThere();
}

TEST_F(RecoverTest, AWholeOneGetsTheRunsThatItLacks) {
  std::filesystem::remove(catalog_);
  ASSERT_TRUE(Catalog::OpenOrCreate(catalog_).has_value());
  const auto look = Recover(false);
  EXPECT_TRUE(look->Changes());
  EXPECT_TRUE(Catalog::Open(catalog_).value()->RunIds().value().empty());
  const auto outcome = Recover();
  ASSERT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
  EXPECT_EQ(outcome->found, Found::kWhole);
  EXPECT_TRUE(outcome->old_file.empty());
  ExpectRunsThere();
}

TEST_F(RecoverTest, RunsWhoseRecordsDoNotHoldAreLeftOut) {
  std::filesystem::remove(catalog_);
  std::filesystem::create_directories(runs_ + "/unfinished");
  const std::string manifest = directory_ / "a/manifest.json";
  WriteBytes(manifest, ReadBytes(manifest) + " ");
  auto outcome = Recover();
  ASSERT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
  EXPECT_EQ(outcome->added_runs, std::vector<std::string>{run_b_});
  ASSERT_EQ(outcome->left_out_runs.size(), 2u);
  EXPECT_NE(outcome->left_out_runs[0].find(run_a_), std::string::npos);

  std::filesystem::remove(catalog_);
  const std::string plan = JoinPath(JoinPath(runs_, run_b_), "plan.json");
  WriteBytes(plan, ReadBytes(plan) + " ");
  outcome = Recover();
  EXPECT_EQ(ErrorOf(outcome).kind(), ErrorKind::kBadInput);
  EXPECT_NE(ErrorOf(outcome).ToString().find("no complete run"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(catalog_));
}

TEST_F(RecoverTest, FoldersOfKnownRunsAreNotLeftOut) {
  std::filesystem::remove_all(directory_ / "a");
  std::filesystem::remove(JoinPath(JoinPath(runs_, run_b_), "plan.json"));
  std::filesystem::create_directories(runs_ + "/unfinished");
  auto outcome = Recover();
  ASSERT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
  EXPECT_FALSE(outcome->Changes());
  ASSERT_EQ(outcome->left_out_runs.size(), 1u);
  EXPECT_NE(outcome->left_out_runs[0].find("unfinished"), std::string::npos);

  DamageSome();  // also the first run
  outcome = Recover();
  ASSERT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
  EXPECT_EQ(outcome->lost_models, 1u);
  ASSERT_EQ(outcome->left_out_runs.size(), 2u);
  EXPECT_NE(outcome->left_out_runs[0].find(run_a_), std::string::npos);
}

TEST_F(RecoverTest, ACutOneLeavesOneFileMore) {
  const std::string cut = ReadBytes(catalog_).substr(0, 150000);
  WriteBytes(catalog_, cut);
  const auto outcome = Recover();
  ASSERT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
  EXPECT_EQ(outcome->damage.find('\n'), std::string::npos);
  EXPECT_EQ(outcome->damage.find("***"), std::string::npos);
  EXPECT_EQ(NamesIn(directory_ / "db").size(), 2u);
  EXPECT_EQ(ReadBytes(outcome->old_file), cut);
  ExpectRunsThere();
}

TEST_F(RecoverTest, RefusesWhatIsNotACatalog) {
  for (const std::string& bytes : {std::string(9000, 'x'), std::string()}) {
    WriteBytes(catalog_, bytes);
    const auto outcome = Recover();
    EXPECT_EQ(ErrorOf(outcome).kind(), ErrorKind::kBadInput);
    EXPECT_EQ(ErrorOf(outcome).problems().front().subject, catalog_);
    EXPECT_EQ(ReadBytes(catalog_), bytes);
  }
  EXPECT_EQ(NamesIn(directory_ / "db"), std::vector<std::string>{"catalog.sqlite"});
}

TEST_F(RecoverTest, ALinkStaysALink) {
  DamageSome();
  const std::string link = directory_ / "link.sqlite";
  ASSERT_EQ(::symlink(catalog_.c_str(), link.c_str()), 0);
  const auto outcome = RecoverCatalog(files_, {link, runs_, true});
  ASSERT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  ExpectRunsThere();
}

TEST_F(RecoverTest, AJournalGoesWithTheFileThatItBelongsTo) {
  DamageSome();
  WriteBytes(catalog_ + "-wal", "not of the new file");
  const auto outcome = Recover();
  ASSERT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
  EXPECT_FALSE(std::filesystem::exists(catalog_ + "-wal"));
  ExpectRunsThere();
}

}  // namespace
}  // namespace mergepipe
