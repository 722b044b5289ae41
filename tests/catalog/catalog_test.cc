#include "mergepipe/catalog/catalog.h"

#include <gtest/gtest.h>

#include "catalog/catalog_fixture.h"

namespace mergepipe {
namespace {

void ExpectModel(Catalog& catalog, const ModelRecord& model) {
  const auto found = catalog.FindModel(model.id);
  ASSERT_TRUE(Succeeded(found));
  ASSERT_TRUE(found->has_value());
  EXPECT_EQ((*found)->id, model.id);
  EXPECT_TRUE(SameLayout((*found)->layout, model.layout));
  EXPECT_EQ((*found)->fingerprint, model.fingerprint);
  EXPECT_EQ((*found)->registered_at, model.registered_at);
}

TEST_F(CatalogTest, NewCatalogIsEmptyAndOneFile) {
  const auto catalog = MakeCatalog();
  EXPECT_EQ(catalog->ModelIds().value(), std::vector<std::string>{});
  EXPECT_EQ(catalog->RunIds().value(), std::vector<std::string>{});
  EXPECT_FALSE(catalog->FindModel("a").value().has_value());
  EXPECT_FALSE(catalog->FindModelByPath("/a").value().has_value());
  EXPECT_FALSE(catalog->FindPlan("a").value().has_value());
  EXPECT_FALSE(catalog->FindRun("a").value().has_value());
  EXPECT_FALSE(catalog->FindRunByOutput("/a").value().has_value());
  EXPECT_TRUE(Succeeded(catalog->CheckIntegrity()));
}

TEST_F(CatalogTest, ModelRoundTrips) {
  const ModelRecord rich = RichModel("größe");
  ASSERT_TRUE(Succeeded(MakeCatalog()->PutModels({rich, PlainModel("plain", "x", 3)})));
  const auto catalog = Catalog::Open(path_).value();
  ExpectModel(*catalog, rich);
  ExpectModel(*catalog, PlainModel("plain", "x", 3));
  const auto by_path = catalog->FindModelByPath(rich.layout.path);
  ASSERT_TRUE(Succeeded(by_path));
  EXPECT_TRUE(SameLayout((*by_path)->layout, rich.layout));
  EXPECT_TRUE(Succeeded(catalog->CheckIntegrity()));
}

TEST_F(CatalogTest, ModelWithoutAnythingRoundTrips) {
  ModelRecord bare;
  bare.layout.is_directory = false;
  const auto catalog = MakeCatalog();
  ASSERT_TRUE(Succeeded(catalog->PutModels({bare})));
  ExpectModel(*catalog, bare);
}

TEST_F(CatalogTest, ReplacingAModelRemovesItsOldRows) {
  const auto catalog = MakeCatalog();
  ASSERT_TRUE(Succeeded(catalog->PutModels({RichModel("m"), PlainModel("other", "o", 2)})));
  ModelRecord again = PlainModel("m", "new", 1);
  again.layout.path = RichModel("m").layout.path;
  ASSERT_TRUE(Succeeded(catalog->PutModels({again})));
  ExpectModel(*catalog, again);
  ExpectModel(*catalog, PlainModel("other", "o", 2));
  Database database(path_);
  EXPECT_EQ(database.Text("SELECT count(*) FROM models"), "2");
  EXPECT_EQ(database.Text("SELECT count(*) FROM files"), "2");
  EXPECT_EQ(database.Text("SELECT count(*) FROM file_metadata"), "2");
  EXPECT_EQ(database.Text("SELECT count(*) FROM tensors"), "3");
}

TEST_F(CatalogTest, LastOfEqualIdsAndPathsWins) {
  const auto catalog = MakeCatalog();
  ModelRecord twin = PlainModel("twin", "t", 1);
  twin.layout.path = PlainModel("m", "b", 2).layout.path;
  ASSERT_TRUE(
      Succeeded(catalog->PutModels({PlainModel("m", "a", 1), PlainModel("m", "b", 2), twin})));
  ExpectModel(*catalog, PlainModel("m", "b", 2));
  EXPECT_EQ(catalog->FindModelByPath(twin.layout.path).value()->id, "twin");
}

TEST_F(CatalogTest, AnIdOfAnotherPathIsNotTakenOver) {
  const auto ours = MakeCatalog();
  ASSERT_FALSE(ours->FindModel("m").value().has_value());
  const ModelRecord theirs = PlainModel("m", "x", 2);
  ASSERT_TRUE(Succeeded(Catalog::Open(path_).value()->PutModels({theirs})));
  ModelRecord other = theirs;  // the same in all but its path, and then in nothing
  other.layout.path = "/elsewhere/m";
  ModelRecord foreign = PlainModel("m", "y", 3);
  foreign.layout.path = "/elsewhere/m";
  for (const ModelRecord& model : {other, foreign}) {
    const Error error = ours->PutModels({PlainModel("new", "n", 1), model}).error();
    EXPECT_EQ(error.ToString(),
              "model 'm': was registered for '/models/m' meanwhile; run the same command again");
    EXPECT_EQ(error.kind(), ErrorKind::kBadInput);
  }
  // Nor within one call.
  EXPECT_FALSE(ours->PutModels({PlainModel("n", "n", 1), theirs, other}).has_value());
  ExpectModel(*ours, theirs);
  EXPECT_EQ(ours->ModelIds().value(), std::vector<std::string>{"m"});
  EXPECT_TRUE(Succeeded(ours->CheckIntegrity()));
}

TEST_F(CatalogTest, ModelIdsAreSorted) {
  const auto catalog = MakeCatalog();
  ASSERT_TRUE(Succeeded(catalog->PutModels({PlainModel("b", "", 0), PlainModel("ä", "", 0),
                                            PlainModel("B", "", 0), PlainModel("a", "", 0)})));
  EXPECT_EQ(catalog->ModelIds().value(), (std::vector<std::string>{"B", "a", "b", "ä"}));
}

TEST_F(CatalogTest, RefusesRecordsThatCouldNotBeReadAndKeepsTheOld) {
  const auto catalog = MakeCatalog();
  const ModelRecord good = PlainModel("m", "x", 2);
  ASSERT_TRUE(Succeeded(catalog->PutModels({good})));
  std::vector<ModelRecord> bad(3, good);
  bad[0].layout.tensors[1].shape = {uint64_t{1} << 40, uint64_t{1} << 40};
  bad[1].layout.tensors[1].offset = UINT64_MAX;
  bad[2].layout.files[0].info.size = UINT64_MAX;
  for (const ModelRecord& model : bad) {
    const Status status = catalog->PutModels({PlainModel("new", "y", 1), model});
    ASSERT_FALSE(status.has_value());
    ExpectError(status.error(), ErrorKind::kInternal, path_, "too large");
  }
  ModelRecord no_file = good;
  no_file.layout.tensors[1].file = 1;
  ExpectError(catalog->PutModels({no_file}).error(), ErrorKind::kInternal, path_, "no file 1");
  ExpectModel(*catalog, good);
  EXPECT_EQ(catalog->ModelIds().value(), std::vector<std::string>{"m"});
}

TEST_F(CatalogTest, PlanRoundTripsAndMayBePutAgain) {
  const auto catalog = MakeCatalog();
  const std::string json = "{\"a\": \"" + std::string(100000, 'x') + "ü\"}";
  ASSERT_TRUE(Succeeded(catalog->PutPlan("id", "hash", json)));
  ASSERT_TRUE(Succeeded(catalog->PutPlan("id", "hash", json)));
  for (const Status& status :
       {catalog->PutPlan("id", "other", json), catalog->PutPlan("id", "hash", "{}")}) {
    ASSERT_FALSE(status.has_value());
    ExpectError(status.error(), ErrorKind::kInternal, path_, "'id'");
  }
  EXPECT_EQ(catalog->FindPlan("id").value(), json);
}

TEST_F(CatalogTest, RunsAreFoundByIdAndByOutput) {
  const auto catalog = MakeCatalog();
  const RunRecord newest = MakeRun("r3", "/out", "2026-02-03T12:00:00Z");
  const RunRecord oldest = MakeRun("r9", "/out", "2026-02-03T10:00:00Z");
  const RunRecord other = MakeRun("r1", "/elsewhere", "2026-02-03T11:00:00Z");
  for (const RunRecord& run : {newest, oldest, other}) {
    ASSERT_TRUE(Succeeded(catalog->PutRun(run)));
  }
  EXPECT_EQ(catalog->FindRun("r9").value(), oldest);
  EXPECT_EQ(catalog->FindRunByOutput("/out").value(), newest);
  EXPECT_EQ(catalog->FindRunByOutput("/ou").value(), std::nullopt);
  EXPECT_EQ(catalog->RunIds().value(), (std::vector<std::string>{"r9", "r1", "r3"}));
}

TEST_F(CatalogTest, PutRunReplaces) {
  const auto catalog = MakeCatalog();
  RunRecord run = MakeRun("r", "/out", "2026-02-03T12:00:00Z");
  ASSERT_TRUE(Succeeded(catalog->PutRun(run)));
  run.output_path = "/moved";
  run.manifest_hash = "again";
  ASSERT_TRUE(Succeeded(catalog->PutRun(run)));
  EXPECT_EQ(catalog->FindRun("r").value(), run);
  EXPECT_EQ(catalog->FindRunByOutput("/out").value(), std::nullopt);
  EXPECT_EQ(catalog->RunIds().value(), std::vector<std::string>{"r"});
}

TEST_F(CatalogTest, RunsOfOneSecondKeepTheirOrder) {
  const auto catalog = MakeCatalog();
  for (const char* id : {"b", "c", "a", "c"}) {
    ASSERT_TRUE(Succeeded(catalog->PutRun(MakeRun(id, "/out", "2026-02-03T12:00:00Z"))));
  }
  EXPECT_EQ(catalog->RunIds().value(), (std::vector<std::string>{"b", "c", "a"}));
  EXPECT_EQ(catalog->FindRunByOutput("/out").value()->run_id, "a");
}

}  // namespace
}  // namespace mergepipe
