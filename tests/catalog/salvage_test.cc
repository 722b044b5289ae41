// What is read from a damaged catalog is what was put, and what damage did not touch is read.

#include "mergepipe/catalog/salvage.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "catalog/catalog_fixture.h"
#include "catalog/open_catalog.h"
#include "catalog/schema.h"
#include "catalog/sqlite.h"

namespace mergepipe {
namespace {

constexpr int kModels = 4;
constexpr int kRuns = 10;
constexpr uint32_t kTensors = 20;

std::string ModelName(int i) { return "m" + std::to_string(i); }
std::string RunName(int i) { return "run" + std::to_string(i); }
ModelRecord MakeModel(int i) { return PlainModel(ModelName(i), "t", kTensors); }
RunRecord MakeNthRun(int i) { return MakeRun(RunName(i), "/out", "2026-02-03T12:00:00Z"); }
std::string MakePlan(int i) { return std::string(3000, static_cast<char>('a' + i)); }
StatisticsId MakeId(int i) { return {"m0", ModelName(i), 1000, 0}; }
std::vector<BlockStatistics> MakeTensor(int i, uint32_t tensor) {
  return MakeBlocks(100, static_cast<uint64_t>(i) * 100 + tensor);
}

class SalvageTest : public CatalogTest {
 protected:
  SalvageTest() {
    const auto catalog = MakeCatalog();
    std::vector<ModelRecord> models;
    for (int i = 0; i < kModels; ++i) models.push_back(MakeModel(i));
    StatisticsBatch batch{{}, "m0", 1000, {}, PointersTo(models)};
    for (int i = 0; i < kModels; ++i) {
      EXPECT_TRUE(Succeeded(catalog->PutModels({MakeModel(i)})));
      EXPECT_TRUE(Succeeded(catalog->PutPlan("plan" + std::to_string(i), "hash", MakePlan(i))));
      batch.sets.push_back({MakeId(i), {}});
      for (uint32_t t = 0; t < kTensors; ++t) {
        batch.sets.back().tensors.push_back({t, MakeTensor(i, t)});
      }
    }
    for (uint32_t t = 0; t < kTensors; ++t) batch.base_tensors.push_back({t, MakeBaseBlocks(9, t)});
    EXPECT_TRUE(Succeeded(catalog->PutStatistics(batch)));
    for (int i = 0; i < kRuns; ++i) EXPECT_TRUE(Succeeded(catalog->PutRun(MakeNthRun(i))));
  }

  std::unique_ptr<Catalog> NewCatalog() {
    const std::string path = InDirectory("new" + std::to_string(++news_));
    return Catalog::OpenOrCreate(path).value();
  }

  Salvage CopyTo(Catalog* into) {
    const auto damaged = DamagedCatalog::Open(path_, DamagedCatalog::Purpose::kReplace);
    EXPECT_TRUE(Succeeded(damaged));
    const auto salvage = (*damaged)->CopyTo(into);
    EXPECT_TRUE(Succeeded(salvage));
    return salvage.value_or(Salvage());
  }

  /// That all that is there is as it was put, and counted.
  static void ExpectNothingElse(Catalog& catalog, const Salvage& salvage) {
    ASSERT_TRUE(Succeeded(catalog.CheckIntegrity()));
    EXPECT_EQ(catalog.RunIds().value().size(), salvage.runs.size());
    const auto runs = catalog.RunIds().value();
    for (const std::string& id : runs) {
      EXPECT_EQ(catalog.FindRun(id).value(), MakeNthRun(std::stoi(id.substr(3))));
    }
    EXPECT_EQ(catalog.ModelIds().value().size(), salvage.models.size());
    const auto models = catalog.ModelIds().value();
    for (const std::string& id : models) {
      EXPECT_TRUE(SameLayout(catalog.FindModel(id).value()->layout,
                             MakeModel(std::stoi(id.substr(1))).layout));
    }
    for (const std::string& id : salvage.plans) {
      EXPECT_EQ(catalog.FindPlan(id).value(), MakePlan(std::stoi(id.substr(4))));
    }
    size_t tensors = 0;
    for (int i = 0; i < kModels; ++i) {
      const auto positions = catalog.StatisticsTensors(MakeId(i)).value();
      for (const uint32_t t : positions) {
        EXPECT_TRUE(catalog.ReadStatistics(MakeId(i), t).value() == MakeTensor(i, t));
        ++tensors;
      }
    }
    const auto positions = catalog.BaseStatisticsTensors("m0", 1000).value();
    for (const uint32_t t : positions) {
      EXPECT_TRUE(catalog.ReadBaseStatistics("m0", 1000, t).value() == MakeBaseBlocks(9, t));
      ++tensors;
    }
    EXPECT_EQ(tensors, salvage.statistics);
  }

  int news_ = 0;
};

TEST_F(SalvageTest, AWholeOneIsCopiedWhole) {
  const auto catalog = NewCatalog();
  const Salvage salvage = CopyTo(catalog.get());
  EXPECT_EQ(salvage.models.size(), size_t{kModels});
  EXPECT_EQ(salvage.plans.size(), size_t{kModels});
  EXPECT_EQ(salvage.runs.size(), size_t{kRuns});
  EXPECT_EQ(salvage.statistics, uint64_t{(kModels + 1) * kTensors});
  EXPECT_EQ(salvage.lost, std::vector<std::string>{});
  ExpectNothingElse(*catalog, salvage);
  EXPECT_EQ(catalog->RunIds().value(), MakeCatalog()->RunIds().value());
  EXPECT_EQ(catalog->FindRunByOutput("/out").value()->run_id, RunName(kRuns - 1));
}

TEST_F(SalvageTest, LookingChangesNothing) {
  const std::string before = ReadBytes(path_);
  const Salvage salvage = CopyTo(nullptr);
  EXPECT_EQ(salvage.statistics, uint64_t{(kModels + 1) * kTensors});
  EXPECT_EQ(salvage.runs.size(), size_t{kRuns});
  EXPECT_EQ(ReadBytes(path_), before);
}

TEST_F(SalvageTest, LostRecordsAreNamed) {
  Database(path_).Run(
      "UPDATE tensors SET name = 'x' WHERE position = 3 AND "
      "model = (SELECT key FROM models WHERE id = 'm2'); UPDATE plans SET json = 'x' "
      "WHERE plan_id = 'plan1'; UPDATE runs SET output_path = 'x' WHERE run_id = 'run7'; "
      "UPDATE statistics SET checksum = 'x' WHERE tensor = 5");
  const auto catalog = NewCatalog();
  const Salvage salvage = CopyTo(catalog.get());
  EXPECT_EQ(salvage.lost, (std::vector<std::string>{
                              "model 'm2'", "plan 'plan1'", "run 'run7'",
                              "statistics of 'm0' from 'm0' in blocks of 1000, exact: of up to 1 "
                              "tensors",
                              "statistics of 'm1' from 'm0' in blocks of 1000, exact: of up to 1 "
                              "tensors",
                              "statistics of 'm3' from 'm0' in blocks of 1000, exact: of up to 1 "
                              "tensors",
                              "statistics of the base 'm0' in blocks of 1000, exact: of up to 1 "
                              "tensors",
                              "1 sets of statistics: what they are of cannot be read"}));
  EXPECT_EQ(salvage.lost_models, 1u);
  EXPECT_EQ(salvage.runs.size(), size_t{kRuns - 1});
  EXPECT_EQ(salvage.statistics, uint64_t{kModels * (kTensors - 1)});
  ExpectNothingElse(*catalog, salvage);
}

TEST_F(SalvageTest, OverwrittenPagesLoseLittle) {
  const std::string good = ReadBytes(path_);
  const size_t pages = good.size() / 4096;
  ASSERT_GT(pages, 100u);
  uint64_t most_lost = 0;
  uint64_t lost_in_all = 0;
  size_t rounds = 0;
  for (size_t page = 1; page < pages; page += 13, ++rounds) {
    SCOPED_TRACE(page);
    std::string bad = good;
    bad.replace(page * 4096, 4096, 4096, '\xff');
    WriteBytes(path_, bad);
    const auto catalog = NewCatalog();
    const Salvage salvage = CopyTo(catalog.get());
    ExpectNothingElse(*catalog, salvage);
    const uint64_t lost = (kModels + 1) * kTensors - salvage.statistics;
    const bool all_there = lost == 0 && salvage.models.size() == kModels &&
                           salvage.runs.size() == kRuns && salvage.plans.size() == kModels;
    EXPECT_TRUE(all_there || !salvage.lost.empty());
    most_lost = std::max(most_lost, lost);
    lost_in_all += lost;
  }
  EXPECT_LE(lost_in_all / rounds, 12u) << "of " << (kModels + 1) * kTensors << " a page on average";
  EXPECT_GT(most_lost, 0u);
}

TEST_F(SalvageTest, CutFilesGiveWhatTheyStillHave) {
  const std::string good = ReadBytes(path_);
  uint64_t statistics = 0;
  for (size_t length = 4096; length < good.size(); length += 4096 * 19 + 1) {
    SCOPED_TRACE(length);
    WriteBytes(path_, good.substr(0, length));
    const auto catalog = NewCatalog();
    const Salvage salvage = CopyTo(catalog.get());
    ExpectNothingElse(*catalog, salvage);
    EXPECT_FALSE(salvage.lost.empty());
    statistics = std::max(statistics, salvage.statistics);
  }
  EXPECT_GT(statistics, 50u);
}

// On rollback sqlite3 would delete a journal by its name, which may be another process's by then.
TEST_F(SalvageTest, TheLockMakesNoJournal) {
  const std::string good = ReadBytes(path_);
  const auto expect_none = [&](const std::string& bad) {
    WriteBytes(path_, bad);
    const std::string journal = path_ + "-journal";
    {
      const auto damaged = DamagedCatalog::Open(path_, DamagedCatalog::Purpose::kReplace);
      ASSERT_TRUE(Succeeded(damaged));
      ASSERT_TRUE(Succeeded((*damaged)->CopyTo(nullptr)));
      EXPECT_FALSE(std::filesystem::exists(journal));
      WriteBytes(journal, "another's");
    }
    EXPECT_TRUE(std::filesystem::remove(journal));
    EXPECT_EQ(ReadBytes(path_), bad);
  };
  for (const size_t length : {size_t{4096}, size_t{8192}, size_t{150000}, good.size() / 2}) {
    SCOPED_TRACE(length);
    expect_none(good.substr(0, length));
  }
  for (const size_t begin : {size_t{100}, size_t{1000}, size_t{4096}}) {
    SCOPED_TRACE(begin);
    std::string bad = good.substr(0, 150000);
    bad.replace(begin, 4096, 4096, '\xff');
    expect_none(bad);
  }
}

TEST_F(SalvageTest, ExactAndProbedStatisticsAreToldApart) {
  StatisticsId probed = MakeId(1);
  probed.stride = 7;
  const auto catalog = MakeCatalog();
  const auto base = catalog->FindModel("m0").value();
  const auto expert = catalog->FindModel("m1").value();
  EXPECT_TRUE(Succeeded(catalog->PutStatistics(
      {{{probed, {{2, MakeTensor(1, 2)}}}}, "m0", 0, {}, {&*base, &*expert}})));
  Database(path_).Run("UPDATE statistics SET checksum = 'x' WHERE tensor = 2");
  std::vector<std::string> lost = CopyTo(nullptr).lost;
  const auto count = [&](const std::string& line) {
    return std::count(lost.begin(), lost.end(), line);
  };
  const std::string set = "statistics of 'm1' from 'm0' in blocks of 1000, ";
  EXPECT_EQ(count(set + "exact: of up to 1 tensors"), 1);
  EXPECT_EQ(count(set + "probed with stride 7: of up to 1 tensors"), 1);
}

TEST_F(SalvageTest, FlippedBytesNeverGiveOtherData) {
  const std::string good = ReadBytes(path_);
  std::mt19937_64 random(5);
  for (int round = 0; round < 25; ++round) {
    SCOPED_TRACE(round);
    std::string bad = good;
    for (int i = 0; i < 40; ++i) {
      bad[100 + random() % (bad.size() - 100)] ^= static_cast<char>(1 + random() % 255);
    }
    WriteBytes(path_, bad);
    const auto catalog = NewCatalog();
    ExpectNothingElse(*catalog, CopyTo(catalog.get()));
  }
}

TEST_F(SalvageTest, ADamagedSchemaNumber) {
  Database(path_).Run("PRAGMA user_version = -5");
  const auto catalog = NewCatalog();
  EXPECT_EQ(CopyTo(catalog.get()).lost, std::vector<std::string>{});
}

TEST_F(SalvageTest, OfTwoModelsWithOneIdTheFirstIsCopiedWithItsStatistics) {
  // As a page that was never overwritten brings it back: "mX" becomes a whole second "m1".
  ModelRecord second = PlainModel("m1", "other", kTensors);
  second.layout.path = "/elsewhere";
  const auto other = Catalog::OpenOrCreate(InDirectory("other")).value();
  ASSERT_TRUE(Succeeded(other->PutModels({second})));
  const std::string checksum =
      Database(InDirectory("other")).Text("SELECT checksum FROM models WHERE id = 'm1'");
  second.id = "mX";
  {
    const auto catalog = MakeCatalog();
    ASSERT_TRUE(Succeeded(catalog->PutModels({second})));
    const ModelRecord base = MakeModel(0);
    StatisticsBatch batch{
        {{{"m0", "mX", 1000, 0}, {{7, MakeBlocks(3, 1)}}}}, "", 0, {}, {&base, &second}};
    ASSERT_TRUE(Succeeded(catalog->PutStatistics(batch)));
  }
  Database(path_).Run("UPDATE models SET checksum = '" + checksum + "' WHERE id = 'mX'");
  std::string bytes = ReadBytes(path_);
  const size_t at = bytes.find("mX/elsewhere");
  ASSERT_NE(at, std::string::npos);
  bytes[at + 1] = '1';
  WriteBytes(path_, bytes);
  ASSERT_EQ(Database(path_).Text("SELECT count(*) FROM models NOT INDEXED WHERE id LIKE 'm1'"),
            "2");
  const auto catalog = NewCatalog();
  const Salvage salvage = CopyTo(catalog.get());
  EXPECT_EQ(salvage.lost,
            (std::vector<std::string>{"a second model 'm1'", "model 'mX'",
                                      "1 sets of statistics: what they are of cannot be read"}));
  EXPECT_EQ(salvage.statistics, uint64_t{(kModels + 1) * kTensors});
  ExpectNothingElse(*catalog, salvage);
}

TEST_F(SalvageTest, AnOldSchemaHasNoStatisticsToLose) {
  path_ = InDirectory("v1");
  WriteBytes(path_, "");
  {
    const auto connection = Connection::Open(path_, path_, std::chrono::milliseconds(50)).value();
    ASSERT_TRUE(Succeeded(CreateSchema(*connection, 1)));
  }
  const auto catalog = NewCatalog();
  EXPECT_EQ(CopyTo(catalog.get()).lost, std::vector<std::string>{});
}

TEST_F(SalvageTest, RefusesWhatIsNotADamagedCatalog) {
  const auto error = [&] {
    const auto opened = DamagedCatalog::Open(path_, DamagedCatalog::Purpose::kReplace);
    EXPECT_FALSE(opened.has_value());
    return opened ? Error(ErrorKind::kInternal, "", "") : opened.error();
  };
  Database(path_).Run("PRAGMA user_version = 99");
  ExpectError(error(), ErrorKind::kBadInput, path_, "newer mergepipe");
  Database(path_).Run("PRAGMA application_id = 7");
  ExpectError(error(), ErrorKind::kBadInput, path_, "is not a mergepipe catalog");
  WriteBytes(path_, std::string(5000, 'x'));
  ExpectError(error(), ErrorKind::kBadInput, path_, "is not a mergepipe catalog");
  WriteBytes(path_, "");
  ExpectError(error(), ErrorKind::kBadInput, path_, "empty file");
  path_ = InDirectory("absent");
  ExpectError(error(), ErrorKind::kBadInput, path_, "no such catalog");
}

TEST_F(SalvageTest, KeepsWritersAwayWhileItIsReplaced) {
  const auto catalog = OpenCatalog(path_, IfAbsent::kFail, std::chrono::milliseconds(20)).value();
  {
    const auto damaged = DamagedCatalog::Open(path_, DamagedCatalog::Purpose::kReplace).value();
    ExpectError(catalog->PutRun(MakeNthRun(0)).error(), ErrorKind::kIo, path_, "is locked");
  }
  const auto damaged = DamagedCatalog::Open(path_, DamagedCatalog::Purpose::kLook).value();
  EXPECT_TRUE(Succeeded(catalog->FindRun(RunName(0))));
}

}  // namespace
}  // namespace mergepipe
