// A catalog whose file was changed behind its back: an error or the right data, never a crash.

#include <gtest/gtest.h>

#include <random>

#include "catalog/catalog_fixture.h"
#include "catalog/open_catalog.h"

namespace mergepipe {
namespace {

class CatalogDamageTest : public CatalogTest {
 protected:
  CatalogDamageTest() {
    const auto catalog = MakeCatalog();
    EXPECT_TRUE(Succeeded(catalog->PutModels({RichModel("m"), PlainModel("p", "x", 200)})));
    EXPECT_TRUE(Succeeded(catalog->PutPlan("plan", "hash", std::string(9000, 'j'))));
    EXPECT_TRUE(Succeeded(catalog->PutRun(MakeRun("r", "/out", "2026-02-03T12:00:00Z"))));
  }

  void ExpectDamaged(const std::string& sql, const std::string& what) {
    const std::string good = ReadBytes(path_);
    Database(path_).Run(sql);
    const auto catalog = MakeCatalog();
    const auto found = catalog->FindModel("m");
    ASSERT_FALSE(found.has_value()) << sql;
    ExpectError(found.error(), ErrorKind::kBadInput, path_, what);
    ExpectError(found.error(), ErrorKind::kBadInput, path_, "mergepipe recover");
    EXPECT_FALSE(catalog->CheckIntegrity().has_value()) << sql;
    WriteBytes(path_, good);
  }

  /// Whether everything that can be read is either refused or what was put.
  void ExpectErrorsOrRightData() {
    const auto opened = OpenCatalog(path_, IfAbsent::kFail, std::chrono::milliseconds(0));
    if (!opened) {
      EXPECT_EQ(opened.error().kind(), ErrorKind::kBadInput) << opened.error().ToString();
      return;
    }
    Catalog& catalog = **opened;
    if (const auto m = catalog.FindModel("m"); m && *m) {
      EXPECT_TRUE(SameLayout((*m)->layout, RichModel("m").layout));
    }
    if (const auto p = catalog.FindModelByPath("/models/p"); p && *p) {
      EXPECT_TRUE(SameLayout((*p)->layout, PlainModel("p", "x", 200).layout));
    }
    if (const auto plan = catalog.FindPlan("plan"); plan && *plan) {
      EXPECT_EQ(**plan, std::string(9000, 'j'));
    }
    if (const auto run = catalog.FindRunByOutput("/out"); run && *run) {
      EXPECT_EQ(**run, MakeRun("r", "/out", "2026-02-03T12:00:00Z"));
    }
    (void)catalog.ModelIds();
    (void)catalog.RunIds();
    (void)catalog.CheckIntegrity();
    (void)catalog.PutModels({PlainModel("p", "y", 50), PlainModel("new", "z", 5)});
    (void)catalog.PutRun(MakeRun("r2", "/out", "2026-02-03T13:00:00Z"));
  }
};

TEST_F(CatalogDamageTest, ImpossibleValuesAreNamed) {
  const std::string tensor = "UPDATE tensors SET ";
  const std::string where =
      " WHERE position = 1 AND model = (SELECT key FROM models WHERE id = 'm')";
  ExpectDamaged(tensor + "dtype = 'F8_E4M3'" + where,
                "model 'm', tensor 1, column 3: not a valid dtype");
  for (const char* shape : {"'-1'", "'2,'", "',2'", "'2,,3'", "'2 3'", "'x'", "'0x2'", "'+2'",
                            "'18446744073709551616'", "'2;3'"}) {
    ExpectDamaged(tensor + "shape = " + shape + where, "not a valid shape");
  }
  ExpectDamaged(tensor + "shape = '4294967296,4294967296'" + where, "is too large");
  ExpectDamaged(tensor + "shape = '18446744073709551615'" + where, "is too large");
  ExpectDamaged(tensor + "offset = -1" + where, "negative");
  ExpectDamaged(tensor + "offset = 9223372036854775807" + where, "is too large");
  ExpectDamaged(tensor + "file = 2" + where, "no file 2");
  ExpectDamaged(tensor + "file = 4294967296" + where, "not a valid file");
  ExpectDamaged("UPDATE files SET size = -1", "negative");
  ExpectDamaged("UPDATE files SET kind = 3", "kind of file");
  ExpectDamaged("UPDATE files SET header_hash = 'zz'", "not a valid hash");
  ExpectDamaged("UPDATE models SET fingerprint = ''", "not a valid hash");
  ExpectDamaged("UPDATE models SET is_directory = 2", "not a valid flag");
}

TEST_F(CatalogDamageTest, MissingAndExtraRowsAreSeen) {
  const std::string of_m = " AND model = (SELECT key FROM models WHERE id = 'm')";
  ExpectDamaged("DELETE FROM tensors WHERE position = 3" + of_m, "rows are missing");
  ExpectDamaged("DELETE FROM tensors WHERE position = (SELECT max(position) FROM tensors WHERE 1" +
                    of_m + ")" + of_m,
                "checksum");
  ExpectDamaged("DELETE FROM files WHERE position = 0" + of_m, "rows are missing");
  ExpectDamaged("DELETE FROM file_metadata WHERE 1" + of_m, "checksum");
  ExpectDamaged("UPDATE file_metadata SET file = 7 WHERE 1" + of_m, "not a valid file");
}

TEST_F(CatalogDamageTest, ChangedTextIsSeen) {
  ExpectDamaged("UPDATE tensors SET name = name || 'x'", "checksum");
  ExpectDamaged("UPDATE models SET directory = '/elsewhere'", "checksum");
  Database(path_).Run("UPDATE plans SET json = '{}'; UPDATE runs SET manifest_hash = 'x'");
  const auto catalog = MakeCatalog();
  ExpectError(catalog->FindPlan("plan").error(), ErrorKind::kBadInput, path_, "checksum");
  ExpectError(catalog->FindRun("r").error(), ErrorKind::kBadInput, path_, "checksum");
  EXPECT_FALSE(catalog->CheckIntegrity().has_value());
}

TEST_F(CatalogDamageTest, MissingTable) { ExpectDamaged("DROP TABLE tensors", "no such table"); }

TEST_F(CatalogDamageTest, TriggersAndViewsOfTheFileDoNothing) {
  Database(path_).Run("CREATE TRIGGER evil AFTER INSERT ON models BEGIN DELETE FROM runs; END;");
  const auto catalog = MakeCatalog();
  ASSERT_TRUE(Succeeded(catalog->PutModels({PlainModel("p", "y", 3), PlainModel("q", "z", 3)})));
  EXPECT_TRUE(catalog->FindRun("r").value().has_value());
  EXPECT_EQ(Database(path_).Text("SELECT count(*) FROM tensors WHERE name LIKE '%.x'"), "0");
}

TEST_F(CatalogDamageTest, CutAtManyLengths) {
  const std::string good = ReadBytes(path_);
  for (size_t length = 1; length < good.size(); length += length < 600 ? 37 : 1021) {
    SCOPED_TRACE(length);
    WriteBytes(path_, good.substr(0, length));
    ExpectErrorsOrRightData();
    std::remove((path_ + "-journal").c_str());
  }
}

TEST_F(CatalogDamageTest, FlippedBytes) {
  const std::string good = ReadBytes(path_);
  std::mt19937_64 random(1);
  for (int round = 0; round < 120; ++round) {
    SCOPED_TRACE(round);
    std::string bad = good;
    const int flips = round % 3 == 0 ? 1 : 20;
    for (int i = 0; i < flips; ++i) {
      bad[random() % bad.size()] ^= static_cast<char>(1 + random() % 255);
    }
    // Every other round the first page stays whole, so that the file opens at all.
    if (round % 2 == 0) bad.replace(0, 100, good, 0, 100);
    WriteBytes(path_, bad);
    ExpectErrorsOrRightData();
    std::remove((path_ + "-journal").c_str());
    std::remove((path_ + "-wal").c_str());
    std::remove((path_ + "-shm").c_str());
  }
}

TEST_F(CatalogDamageTest, OverwrittenPages) {
  const std::string good = ReadBytes(path_);
  for (size_t page = 1; page < good.size() / 4096; ++page) {
    SCOPED_TRACE(page);
    for (const char fill : {'\0', '\xff', '\x0d'}) {
      std::string bad = good;
      bad.replace(page * 4096, 4096, 4096, fill);
      WriteBytes(path_, bad);
      {
        const auto catalog = MakeCatalog();
        const Status status = catalog->CheckIntegrity();
        ASSERT_FALSE(status.has_value());
        ExpectError(status.error(), ErrorKind::kBadInput, path_, "damaged");
      }
      ExpectErrorsOrRightData();
      std::remove((path_ + "-journal").c_str());
    }
  }
}

}  // namespace
}  // namespace mergepipe
