// A catalog whose file was changed behind its back: an error or the right data, never a crash.

#include <gtest/gtest.h>

#include <fmt/format.h>

#include <cmath>
#include <random>
#include <string_view>

#include "catalog/catalog_fixture.h"
#include "catalog/checksum.h"
#include "catalog/open_catalog.h"
#include "catalog/statistics_codec.h"

namespace mergepipe {
namespace {

const StatisticsId kId = {"m", "p", 1000, 3};

class CatalogDamageTest : public CatalogTest {
 protected:
  CatalogDamageTest() {
    const auto catalog = MakeCatalog();
    EXPECT_TRUE(Succeeded(catalog->PutModels(models_)));
    EXPECT_TRUE(
        Succeeded(catalog->PutStatistics({{{kId, {{0, MakeBlocks(300, 1)}, {3, MakeBlocks(1, 2)}}}},
                                          "m",
                                          kId.block_size,
                                          {{0, MakeBaseBlocks(400, 3)}},
                                          PointersTo(models_)})));
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
    ExpectErrorsOrRightStatistics(catalog);
    (void)catalog.ModelIds();
    (void)catalog.RunIds();
    (void)catalog.CheckIntegrity();
    (void)catalog.PutStatistics(
        {{{kId, {{1, MakeBlocks(200, 4)}}}}, "m", 5, {}, PointersTo(models_)});
    (void)catalog.PutModels({PlainModel("p", "y", 50), PlainModel("new", "z", 5)});
    (void)catalog.DropStatistics("m", "p");
    (void)catalog.PutRun(MakeRun("r2", "/out", "2026-02-03T13:00:00Z"));
  }

  static void ExpectErrorsOrRightStatistics(Catalog& catalog) {
    if (const auto blocks = catalog.ReadStatistics(kId, 0); blocks && *blocks) {
      EXPECT_TRUE(**blocks == MakeBlocks(300, 1));
    }
    if (const auto blocks = catalog.ReadStatistics(kId, 3); blocks && *blocks) {
      EXPECT_TRUE(**blocks == MakeBlocks(1, 2));
    }
    if (const auto blocks = catalog.ReadBaseStatistics("m", kId.block_size, 0); blocks && *blocks) {
      EXPECT_TRUE(**blocks == MakeBaseBlocks(400, 3));
    }
    (void)catalog.StatisticsTensors(kId);
    (void)catalog.BaseStatisticsTensors("m", kId.block_size);
  }

  void ExpectStatisticsDamaged(const std::string& sql, const std::string& what) {
    const std::string good = ReadBytes(path_);
    Database(path_).Run(sql);
    const auto catalog = MakeCatalog();
    const auto found = catalog->ReadStatistics(kId, 0);
    ASSERT_FALSE(found.has_value()) << sql;
    ExpectError(found.error(), ErrorKind::kBadInput, path_, what);
    ExpectError(found.error(), ErrorKind::kBadInput, path_, "mergepipe recover");
    EXPECT_FALSE(catalog->CheckIntegrity().has_value()) << sql;
    WriteBytes(path_, good);
  }

  const std::vector<ModelRecord> models_{RichModel("m"), PlainModel("p", "x", 200)};
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

TEST_F(CatalogDamageTest, ChangedStatisticsAreSeen) {
  const std::string where = " WHERE tensor = 0 AND blocks = 300";
  const std::string update = "UPDATE statistics SET ";
  ExpectStatisticsDamaged(update + "checksum = ''" + where, "checksum");
  ExpectStatisticsDamaged(update + "blocks = 299" + where, "length");
  ExpectStatisticsDamaged(update + "blocks = -1" + where, "negative");
  ExpectStatisticsDamaged(update + "data = x'00'" + where, "length");
  ExpectStatisticsDamaged(update + "data = substr(data, 1, 64), blocks = 1" + where, "checksum");
  ExpectStatisticsDamaged(update + "data = CAST(x'ff' || substr(data, 2) AS BLOB)" + where,
                          "checksum");
  ExpectStatisticsDamaged(update + "chunk = 1" + where, "rows are missing");
  ExpectStatisticsDamaged(update + "tensor = 1 WHERE blocks = 400;" + update +
                              "set_key = (SELECT key FROM statistics_sets WHERE expert IS NULL)" +
                              where + "; " + update +
                              "set_key = (SELECT key FROM statistics_sets WHERE expert NOT NULL), "
                              "tensor = 0 WHERE blocks = 400",
                          "length");
  ExpectStatisticsDamaged(
      "UPDATE statistics_sets SET block_size = 1000, stride = 3 "
      "WHERE expert IS NULL; UPDATE statistics_sets SET expert = "
      "CASE WHEN expert IS NULL THEN (SELECT key FROM models WHERE id = 'p') "
      "ELSE NULL END",
      "length");
}

TEST_F(CatalogDamageTest, ImpossibleStatisticsAreSeenUnderARightChecksum) {
  // As another program, or a defect of this one, would write them.
  std::vector<BlockStatistics> blocks = MakeBlocks(3, 1);
  blocks[2].max_abs = std::nanf("");
  const std::vector<std::byte> data = Pack(std::span<const BlockStatistics>(blocks));
  Checksum sum;
  sum << "m" << uint64_t{1} << "p" << kId.block_size << kId.stride << uint64_t{0} << uint64_t{0}
      << uint64_t{3} << std::string_view(reinterpret_cast<const char*>(data.data()), data.size());
  std::string hex;
  for (const std::byte byte : data) hex += fmt::format("{:02x}", std::to_integer<int>(byte));
  ExpectStatisticsDamaged("UPDATE statistics SET blocks = 3, checksum = '" + sum.ToHex() +
                              "', data = x'" + hex + "' WHERE blocks = 300",
                          "not a valid number");
}

TEST_F(CatalogDamageTest, NoStatisticsAreStoredUnderADamagedModel) {
  Database(path_).Run("UPDATE models SET directory = '/elsewhere' WHERE id = 'p'");
  const auto catalog = MakeCatalog();
  const Status put =
      catalog->PutStatistics({{{kId, {{1, MakeBlocks(2, 4)}}}}, "", 0, {}, PointersTo(models_)});
  ExpectError(put.error(), ErrorKind::kBadInput, path_, "mergepipe recover");
  EXPECT_EQ(catalog->StatisticsTensors(kId).value(), (std::vector<uint32_t>{0, 3}));
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
  for (int round = 0; round < 200; ++round) {
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
