// Statistics of blocks in the catalog: what is kept, for how long, and what damage is seen.

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>
#include <utility>

#include "catalog/catalog_fixture.h"
#include "catalog/open_catalog.h"
#include "catalog/schema.h"
#include "catalog/statistics_codec.h"
#include "catalog/statistics_rows.h"

namespace mergepipe {
namespace {

constexpr uint64_t kBlockSize = 640000;

class StatisticsTest : public CatalogTest {
 protected:
  StatisticsTest() : catalog_(MakeCatalog()) {
    EXPECT_TRUE(Succeeded(catalog_->PutModels(Models())));
  }

  static const std::vector<ModelRecord>& Models() {
    static const std::vector<ModelRecord> models = {
        PlainModel("base", "b", 3), PlainModel("a", "a", 3), PlainModel("c", "c", 3)};
    return models;
  }

  static StatisticsId Id(const std::string& expert) { return {"base", expert, kBlockSize, 0}; }

  /// One set with tensors 0, 2, ..., and with the same tensors of the base.
  static StatisticsBatch Batch(const StatisticsId& id, std::vector<size_t> blocks, uint64_t seed) {
    StatisticsBatch batch{{{id, {}}}, id.base, id.block_size, {}, PointersTo(Models())};
    for (uint32_t i = 0; i < blocks.size(); ++i) {
      batch.sets[0].tensors.push_back({2 * i, MakeBlocks(blocks[i], seed + i)});
      batch.base_tensors.push_back({2 * i, MakeBaseBlocks(blocks[i], seed + i)});
    }
    return batch;
  }

  void Put(const StatisticsBatch& batch) { ASSERT_TRUE(Succeeded(catalog_->PutStatistics(batch))); }

  /// That all tensors of `batch` are there as they were put.
  void ExpectThere(const StatisticsBatch& batch) {
    for (const auto& set : batch.sets) {
      for (const auto& tensor : set.tensors) {
        const auto found = catalog_->ReadStatistics(set.id, tensor.tensor);
        ASSERT_TRUE(Succeeded(found));
        ASSERT_TRUE(found->has_value());
        EXPECT_TRUE(**found == tensor.blocks);
      }
    }
    for (const auto& tensor : batch.base_tensors) {
      const auto found = catalog_->ReadBaseStatistics(batch.base, batch.block_size, tensor.tensor);
      ASSERT_TRUE(Succeeded(found));
      ASSERT_TRUE(found->has_value());
      EXPECT_TRUE(**found == tensor.blocks);
    }
  }

  void ExpectGone(const StatisticsId& id) {
    EXPECT_EQ(catalog_->StatisticsTensors(id).value(), std::vector<uint32_t>{});
    EXPECT_EQ(catalog_->ReadStatistics(id, 0).value(), std::nullopt);
  }

  std::unique_ptr<Catalog> catalog_;
};

TEST_F(StatisticsTest, RoundTrips) {
  const StatisticsBatch batch = Batch(Id("a"), {5, 0, 1}, 1);
  Put(batch);
  catalog_ = Catalog::Open(path_).value();
  ExpectThere(batch);
  EXPECT_EQ(catalog_->StatisticsTensors(Id("a")).value(), (std::vector<uint32_t>{0, 2, 4}));
  EXPECT_EQ(catalog_->BaseStatisticsTensors("base", kBlockSize).value(),
            (std::vector<uint32_t>{0, 2, 4}));
  EXPECT_EQ(catalog_->ReadStatistics(Id("a"), 1).value(), std::nullopt);
  EXPECT_EQ(catalog_->ReadBaseStatistics("base", kBlockSize, 1).value(), std::nullopt);
  EXPECT_TRUE(Succeeded(catalog_->CheckIntegrity()));
}

TEST_F(StatisticsTest, NothingIsKnownOfWhatWasNotPut) {
  Put(Batch(Id("a"), {1}, 1));
  for (const StatisticsId& id :
       {Id("c"), Id("base"), Id("nobody"), Id(""), StatisticsId{"nobody", "a", kBlockSize, 0},
        StatisticsId{"a", "base", kBlockSize, 0}, StatisticsId{"base", "a", 1, 0},
        StatisticsId{"base", "a", UINT64_MAX, 0}, StatisticsId{"base", "a", kBlockSize, 7}}) {
    ExpectGone(id);
  }
  EXPECT_EQ(catalog_->ReadBaseStatistics("a", kBlockSize, 0).value(), std::nullopt);
  EXPECT_EQ(catalog_->ReadBaseStatistics("base", 1, 0).value(), std::nullopt);
  EXPECT_TRUE(catalog_->BaseStatisticsTensors("nobody", kBlockSize).value().empty());
}

TEST_F(StatisticsTest, OtherBlockSizesAndStridesAreApart) {
  std::vector<StatisticsBatch> batches;
  for (const uint64_t size : {uint64_t{1}, kBlockSize}) {
    for (const uint64_t stride : {0, 1, 8}) {
      batches.push_back(Batch({"base", "a", size, stride}, {3}, size + stride));
      batches.back().base_tensors.clear();
    }
  }
  for (const auto& batch : batches) Put(batch);
  for (const auto& batch : batches) ExpectThere(batch);
}

TEST_F(StatisticsTest, PuttingAgainReplacesTensorsAndKeepsOthers) {
  const StatisticsBatch first = Batch(Id("a"), {4, 4}, 1);
  Put(first);
  StatisticsBatch second = Batch(Id("a"), {2}, 9);
  second.sets[0].tensors.push_back({1, MakeBlocks(3, 10)});
  Put(second);
  ExpectThere(second);
  EXPECT_EQ(catalog_->ReadStatistics(Id("a"), 2).value(), first.sets[0].tensors[1].blocks);
  EXPECT_EQ(catalog_->StatisticsTensors(Id("a")).value(), (std::vector<uint32_t>{0, 1, 2}));
}

TEST_F(StatisticsTest, ManyBlocksTakeSeveralRows) {
  StatisticsBatch batch = Batch(Id("a"), {kChunkBlocks + 1}, 3);
  batch.base_tensors[0].blocks.pop_back();
  Put(batch);
  ExpectThere(batch);
  EXPECT_EQ(Database(path_).Text("SELECT count(*) FROM statistics"), "3");
  Database(path_).Run("DELETE FROM statistics WHERE chunk = 1");
  ExpectError(catalog_->ReadStatistics(Id("a"), 0).error(), ErrorKind::kBadInput, path_,
              "rows are missing");
  Database(path_).Run("UPDATE statistics SET chunk = 1");
  ExpectError(catalog_->ReadBaseStatistics("base", kBlockSize, 0).error(), ErrorKind::kBadInput,
              path_, "rows are missing");
}

TEST_F(StatisticsTest, OneTransactionForAll) {
  StatisticsBatch batch = Batch(Id("a"), {1}, 1);
  batch.sets.push_back({Id("nobody"), {{0, MakeBlocks(1, 1)}}});
  ExpectError(catalog_->PutStatistics(batch).error(), ErrorKind::kInternal, path_, "'nobody'");
  ExpectGone(Id("a"));
  EXPECT_TRUE(catalog_->BaseStatisticsTensors("base", kBlockSize).value().empty());
}

TEST_F(StatisticsTest, RefusesWhatCouldNotBeRead) {
  const double nan = std::nan("");
  std::vector<StatisticsBatch> bad(6, Batch(Id("a"), {6}, 1));
  bad[0].sets[0].tensors[0].blocks[5].sum_squares = nan;
  bad[1].sets[0].tensors[0].blocks[5].sum_squares = -1e-300;
  bad[2].sets[0].tensors[0].blocks[5].sum_squares = std::numeric_limits<double>::infinity();
  bad[3].sets[0].tensors[0].blocks[5].max_abs = static_cast<float>(nan);
  bad[4].sets[0].tensors[0].blocks[5].max_abs = -1;
  bad[5].base_tensors[0].blocks[5].sum_squares = nan;
  for (const auto& batch : bad) {
    ExpectError(catalog_->PutStatistics(batch).error(), ErrorKind::kInternal, path_, "not finite");
  }
  StatisticsBatch huge = Batch({"base", "a", UINT64_MAX, 0}, {1}, 1);
  ExpectError(catalog_->PutStatistics(huge).error(), ErrorKind::kInternal, path_, "too large");
  huge = Batch(Id("a"), {1}, 1);
  huge.base = "nobody";
  ExpectError(catalog_->PutStatistics(huge).error(), ErrorKind::kInternal, path_, "'nobody'");
  ExpectGone(Id("a"));
}

TEST_F(StatisticsTest, EveryNamedModelNeedsItsRecord) {
  const auto expect_missing = [&](const StatisticsBatch& batch, const std::string& id) {
    ExpectError(catalog_->PutStatistics(batch).error(), ErrorKind::kInternal, path_,
                "without the record of their model '" + id + "'");
  };
  StatisticsBatch batch = Batch(Id("a"), {1}, 1);
  batch.base_tensors.clear();
  batch.base = "ignored without tensors";
  batch.models = {&Models()[0]};
  expect_missing(batch, "a");
  batch.models = {&Models()[1], &Models()[2]};
  expect_missing(batch, "base");
  StatisticsBatch of_base = Batch(Id("a"), {1}, 1);
  of_base.sets.clear();
  of_base.models = {&Models()[1]};
  expect_missing(of_base, "base");
  ExpectGone(Id("a"));
  batch.models = {&Models()[0], &Models()[1]};
  of_base.models = {&Models()[0]};
  for (const auto& good : {batch, of_base}) Put(good);
  for (const auto& good : {batch, of_base}) ExpectThere(good);
}

TEST_F(StatisticsTest, AModelThatChangedWhileItWasReadGetsNoStatistics) {
  const std::vector<StatisticsBatch> read = {Batch(Id("a"), {3}, 1),
                                             Batch({"a", "c", kBlockSize, 0}, {3}, 2)};
  ModelRecord touched = PlainModel("a", "a", 3);
  touched.layout.files[0].info.mtime_ns += 1;
  ModelRecord other = PlainModel("a", "a", 3);
  other.fingerprint.low ^= 1;
  for (const ModelRecord& now : {touched, other}) {
    // Another job registers "a" anew.
    ASSERT_TRUE(Succeeded(Catalog::Open(path_).value()->PutModels({now})));
    for (StatisticsBatch batch : read) {
      batch.sets.insert(batch.sets.begin(), {Id("c"), {{0, MakeBlocks(3, 5)}}});
      const Error error = catalog_->PutStatistics(batch).error();
      EXPECT_EQ(error.ToString(),
                "model 'a': was registered anew, or as another model, while it was read; run the "
                "same command again");
      EXPECT_EQ(error.kind(), ErrorKind::kBadInput);
    }
    for (const StatisticsId& id : {Id("a"), Id("c"), read[1].sets[0].id}) ExpectGone(id);
    EXPECT_TRUE(catalog_->BaseStatisticsTensors("base", kBlockSize).value().empty());
    // What was read of it as it is now, is stored; one wrong record among right ones is enough.
    StatisticsBatch batch = read[0];
    batch.models.push_back(&now);
    EXPECT_FALSE(catalog_->PutStatistics(batch).has_value());
    batch.models = {&Models()[0], &now};
    Put(batch);
    ExpectThere(batch);
    ASSERT_TRUE(Succeeded(catalog_->DropStatistics("base", "a")));
    Database(path_).Run("DELETE FROM statistics_sets");
  }
}

TEST_F(StatisticsTest, TheBaseOfATakenIdGetsNoStatistics) {
  StatisticsBatch batch = Batch(Id("a"), {3}, 1);
  batch.sets.clear();
  ModelRecord base = PlainModel("base", "b", 3);
  base.layout.path = "/elsewhere";
  batch.models = {&base};
  const Status put = catalog_->PutStatistics(batch);
  ASSERT_FALSE(put.has_value());
  EXPECT_EQ(put.error().kind(), ErrorKind::kBadInput);
  EXPECT_EQ(put.error().problems().front().subject, "model 'base'");
  EXPECT_TRUE(catalog_->BaseStatisticsTensors("base", kBlockSize).value().empty());
}

TEST_F(StatisticsTest, AModelThatIsGoneGetsNoStatistics) {
  Database(path_).Run("PRAGMA foreign_keys = ON; DELETE FROM models WHERE id = 'a'");
  const Error error = catalog_->PutStatistics(Batch(Id("a"), {3}, 1)).error();
  EXPECT_EQ(error.kind(), ErrorKind::kBadInput);
  EXPECT_EQ(error.problems().front().subject, "model 'a'");
}

TEST_F(StatisticsTest, AnUnchangedModelMayBePutAgainWhileItIsRead) {
  ModelRecord again = PlainModel("a", "a", 3);
  again.registered_at = "2030-01-01T00:00:00Z";
  again.layout.files[0].info.device = 99;
  ASSERT_TRUE(Succeeded(Catalog::Open(path_).value()->PutModels({again})));
  const StatisticsBatch batch = Batch(Id("a"), {3}, 1);
  Put(batch);
  ExpectThere(batch);
}

TEST_F(StatisticsTest, DropForgetsOneExpertOfOneBase) {
  const StatisticsBatch a = Batch(Id("a"), {3}, 1);
  const StatisticsBatch other_size = Batch({"base", "a", 7, 4}, {3}, 2);
  const StatisticsBatch c = Batch(Id("c"), {3}, 3);
  const StatisticsBatch other_base = Batch({"c", "a", kBlockSize, 0}, {3}, 4);
  for (const auto& batch : {a, other_size, c, other_base}) Put(batch);
  ASSERT_TRUE(Succeeded(catalog_->DropStatistics("base", "a")));
  ASSERT_TRUE(Succeeded(catalog_->DropStatistics("base", "nobody")));
  ASSERT_TRUE(Succeeded(catalog_->DropStatistics("nobody", "c")));
  ExpectGone(Id("a"));
  ExpectGone({"base", "a", 7, 4});
  ExpectThere(c);
  ExpectThere(other_base);
  EXPECT_TRUE(Succeeded(catalog_->CheckIntegrity()));
}

// ------------------------------------------------------------------------- models that are put
// again

class PutAgainTest : public StatisticsTest {
 protected:
  PutAgainTest()
      : a_(Batch(Id("a"), {3, 2}, 1)),
        c_(Batch(Id("c"), {4}, 2)),
        of_a_(Batch({"a", "c", kBlockSize, 0}, {5}, 3)) {
    c_.base_tensors.clear();
    for (const auto& batch : {a_, c_, of_a_}) Put(batch);
  }

  void PutModel(const ModelRecord& model) {
    ASSERT_TRUE(Succeeded(catalog_->PutModels({model})));
    EXPECT_TRUE(Succeeded(catalog_->CheckIntegrity()));
  }

  /// That `model`, which replaces "a", takes with it all that is known of it, and nothing else.
  void ExpectForgotten(const ModelRecord& model) {
    PutModel(model);
    ExpectGone(Id("a"));
    ExpectGone({"a", "c", kBlockSize, 0});
    EXPECT_TRUE(catalog_->BaseStatisticsTensors("a", kBlockSize).value().empty());
    ExpectThere(c_);
    EXPECT_EQ(catalog_->ReadBaseStatistics("base", kBlockSize, 0).value(),
              a_.base_tensors[0].blocks);
    PutModel(PlainModel("a", "a", 3));
    ExpectGone(Id("a"));
    for (const auto& batch : {a_, of_a_}) Put(batch);
  }

  StatisticsBatch a_;
  StatisticsBatch c_;
  StatisticsBatch of_a_;
};

TEST_F(PutAgainTest, SameFilesKeepStatistics) {
  ModelRecord a = PlainModel("a", "a", 3);
  a.layout.files[0].info.device = 99;
  a.registered_at = "2030-01-01T00:00:00Z";
  PutModel(a);
  PutModel(PlainModel("base", "b", 3));
  ASSERT_TRUE(Succeeded(catalog_->PutModels({a, a, PlainModel("base", "b", 3), a})));
  for (const auto& batch : {a_, c_, of_a_}) ExpectThere(batch);
  EXPECT_EQ(catalog_->FindModel("a").value()->layout.files[0].info.device, 99u);
  EXPECT_TRUE(Succeeded(catalog_->CheckIntegrity()));
}

TEST_F(PutAgainTest, OtherFilesForgetThem) {
  const ModelRecord same = PlainModel("a", "a", 3);
  std::vector<ModelRecord> others(7, same);
  others[0].layout.files[0].info.mtime_ns += 1;
  others[1].layout.files[0].info.size += 1;
  others[2].layout.files[0].info.inode += 1;
  others[3].layout.files[0].header_hash.low ^= 1;
  others[4].layout.files[0].name = "other.safetensors";
  others[5].layout.files.push_back(same.layout.files[0]);
  others[6].fingerprint.low ^= 1;
  for (size_t i = 0; i < others.size(); ++i) {
    SCOPED_TRACE(i);
    ExpectForgotten(others[i]);
  }
}

TEST_F(PutAgainTest, AnotherBaseForgetsAllOfItsExperts) {
  ModelRecord base = PlainModel("base", "b", 3);
  base.layout.files[0].info.mtime_ns += 1;
  PutModel(base);
  ExpectGone(Id("a"));
  ExpectGone(Id("c"));
  EXPECT_TRUE(catalog_->BaseStatisticsTensors("base", kBlockSize).value().empty());
  ExpectThere(of_a_);
}

TEST_F(PutAgainTest, AnotherIdOfTheSamePathHasItsOwn) {
  ModelRecord twin = PlainModel("a", "a", 3);
  twin.id = "twin";
  PutModel(twin);
  ExpectGone(Id("twin"));
  twin.fingerprint.low ^= 1;
  PutModel(twin);
  for (const auto& batch : {a_, c_, of_a_}) ExpectThere(batch);
}

TEST_F(PutAgainTest, TheOnePutLastIsStillFoundByPath) {
  ModelRecord twin = PlainModel("a", "a", 3);
  twin.id = "twin";
  PutModel(twin);
  EXPECT_EQ(catalog_->FindModelByPath("/models/a").value()->id, "twin");
  PutModel(PlainModel("a", "a", 3));
  EXPECT_EQ(catalog_->FindModelByPath("/models/a").value()->id, "a");
  ExpectThere(a_);
}

TEST_F(PutAgainTest, ADamagedModelIsReplacedWithoutItsStatistics) {
  Database(path_).Run("UPDATE models SET directory = 'x' WHERE id = 'a'");
  PutModel(PlainModel("a", "a", 3));
  ExpectGone(Id("a"));
  ExpectThere(c_);
}

// -------------------------------------------------------------------------------------- the file

TEST_F(StatisticsTest, SchemaOneMigrates) {
  path_ = InDirectory("v1");
  WriteBytes(path_, "");
  {
    const auto connection = Connection::Open(path_, path_, std::chrono::milliseconds(50)).value();
    ASSERT_TRUE(Succeeded(CreateSchema(*connection, 1)));
  }
  Database(path_).Run(
      "INSERT INTO runs VALUES (1, 'r', '', '', '', '', '', '', '', "
      "(SELECT 'x'))");
  catalog_ = Catalog::Open(path_).value();
  EXPECT_EQ(catalog_->RunIds().value(), std::vector<std::string>{"r"});
  ASSERT_TRUE(
      Succeeded(catalog_->PutModels({PlainModel("base", "b", 3), PlainModel("a", "a", 3)})));
  const StatisticsBatch batch = Batch(Id("a"), {5}, 1);
  Put(batch);
  ExpectThere(batch);
}

TEST_F(StatisticsTest, ABlockTakesLittleMoreThanItsRecord) {
  // As an expert of 400 layers of 600 blocks.
  StatisticsBatch batch = Batch(Id("a"), std::vector<size_t>(400, 600), 1);
  const double blocks = 400 * 600;
  std::vector<BaseTensorBlockStatistics> base_tensors;
  base_tensors.swap(batch.base_tensors);
  auto growth = [&, before = std::filesystem::file_size(path_)]() mutable {
    const auto after = std::filesystem::file_size(path_);
    const auto grown = static_cast<double>(after - std::exchange(before, after));
    return grown / blocks;
  };
  Put(batch);
  const double expert = growth();
  EXPECT_GT(expert, 64);
  EXPECT_LT(expert, 70);
  Put({{}, "base", kBlockSize, std::move(base_tensors), PointersTo(Models())});
  const double base = growth();
  EXPECT_GT(base, 24);
  EXPECT_LT(base, 30);
}

TEST_F(StatisticsTest, ReadsAreQuickAndWritesToo) {
  using Clock = std::chrono::steady_clock;
  const StatisticsBatch batch = Batch(Id("a"), std::vector<size_t>(1000, 100), 1);
  const auto start = Clock::now();
  Put(batch);
  // A tenth of a second alone; the limit is for busy machines and sanitizers.
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(5));
  ExpectThere(batch);
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
}

TEST_F(StatisticsTest, LockedByAnotherConnection) {
  Put(Batch(Id("a"), {3}, 1));
  catalog_ = OpenCatalog(path_, IfAbsent::kFail, std::chrono::milliseconds(50)).value();
  Database other(path_);
  other.Run("BEGIN EXCLUSIVE");
  const std::string line =
      path_ + ": is locked by another process; wait for it or choose another --db";
  EXPECT_EQ(catalog_->ReadStatistics(Id("a"), 0).error().ToString(), line);
  EXPECT_EQ(catalog_->ReadBaseStatistics("base", kBlockSize, 0).error().ToString(), line);
  EXPECT_EQ(catalog_->StatisticsTensors(Id("a")).error().ToString(), line);
  EXPECT_EQ(catalog_->PutStatistics(Batch(Id("a"), {3}, 1)).error().ToString(), line);
  EXPECT_EQ(catalog_->DropStatistics("base", "a").error().ToString(), line);
  other.Run("COMMIT");
  ExpectThere(Batch(Id("a"), {3}, 1));
}

}  // namespace
}  // namespace mergepipe
