// What may lie at the catalog's path, and how it is made, opened, locked and migrated.

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iterator>
#include <string>
#include <thread>

#include "catalog/catalog_file.h"
#include "catalog/catalog_fixture.h"
#include "catalog/open_catalog.h"
#include "catalog/schema.h"

namespace mergepipe {
namespace {

constexpr std::chrono::milliseconds kShort{50};

size_t CountEntries(const std::string& directory) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory),
                                           std::filesystem::directory_iterator()));
}

class CatalogFileTest : public CatalogTest {};

TEST_F(CatalogFileTest, AbsentFile) {
  const auto opened = Catalog::Open(path_);
  ASSERT_FALSE(opened.has_value());
  ExpectError(opened.error(), ErrorKind::kBadInput, path_, "init-db");
  const auto maybe = Catalog::OpenIfExists(path_);
  ASSERT_TRUE(Succeeded(maybe));
  EXPECT_EQ(*maybe, nullptr);
  EXPECT_EQ(CountEntries(directory_), 0u);
}

TEST_F(CatalogFileTest, CreatingLeavesOneFileWithTheUsualMode) {
  const mode_t mask = umask(027);
  MakeCatalog();
  umask(mask);
  EXPECT_EQ(CountEntries(directory_), 1u);
  struct stat info {};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0640u);
  EXPECT_NE(Catalog::OpenIfExists(path_).value(), nullptr);
  EXPECT_TRUE(Succeeded(Catalog::Open(path_)));
}

TEST_F(CatalogFileTest, IsMarkedAndUsesARollbackJournal) {
  MakeCatalog();
  Database database(path_);
  EXPECT_EQ(database.Text("PRAGMA journal_mode"), "delete");
  EXPECT_EQ(database.Text("PRAGMA application_id"), std::to_string(kCatalogApplicationId));
  EXPECT_EQ(database.Text("PRAGMA user_version"), std::to_string(SchemaVersion()));
}

TEST_F(CatalogFileTest, WalModeIsTurnedBack) {
  MakeCatalog();
  Database(path_).Run("PRAGMA journal_mode = WAL");
  ASSERT_TRUE(Succeeded(Catalog::Open(path_)));
  EXPECT_EQ(Database(path_).Text("PRAGMA journal_mode"), "delete");
}

TEST_F(CatalogFileTest, RelativeAndOddNames) {
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(directory_);
  for (const char* name : {"mergedb.sqlite", ":memory:", "file:x?mode=memory", "with space'\""}) {
    EXPECT_TRUE(Succeeded(Catalog::OpenOrCreate(name)));
    EXPECT_TRUE(std::filesystem::is_regular_file(name)) << name;
    EXPECT_TRUE(Succeeded(Catalog::Open(name)));
  }
  std::filesystem::current_path(before);
}

TEST_F(CatalogFileTest, MissingDirectory) {
  path_ = InDirectory("no/such/mergedb.sqlite");
  ExpectError(OpenError(), ErrorKind::kBadInput, path_,
              "'" + InDirectory("no/such") + "' does not exist; create it");
  EXPECT_EQ(CountEntries(directory_), 0u);
}

TEST_F(CatalogFileTest, WhatIsNotARegularFile) {
  const std::string plain = path_;
  path_ = directory_;
  ExpectError(OpenError(), ErrorKind::kBadInput, path_, "is a directory");
  path_ = InDirectory("link");
  ASSERT_EQ(symlink("nowhere", path_.c_str()), 0);
  ExpectError(OpenError(), ErrorKind::kBadInput, path_, "symbolic link");
  path_ = InDirectory("fifo");
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  ExpectError(OpenError(), ErrorKind::kBadInput, path_, "not a regular file");
  WriteBytes(plain, "x");
  path_ = plain + "/below";
  ExpectError(OpenError(), ErrorKind::kBadInput, path_, "'" + plain + "' is not a directory");
}

// sqlite3 would open it, and wait for somebody to write to it.
TEST_F(CatalogFileTest, APipeWithTheNameOfAJournal) {
  MakeCatalog();
  for (const char* suffix : {"-journal", "-wal", "-shm"}) {
    const std::string pipe = path_ + suffix;
    ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
    ExpectError(OpenError(), ErrorKind::kBadInput, path_, "not a regular file");
    ASSERT_EQ(unlink(pipe.c_str()), 0);
  }
  EXPECT_TRUE(Catalog::Open(path_));
}

TEST_F(CatalogFileTest, LinkToACatalogOpens) {
  MakeCatalog();
  const std::string link = InDirectory("link");
  ASSERT_EQ(symlink(path_.c_str(), link.c_str()), 0);
  EXPECT_TRUE(Succeeded(Catalog::Open(link)));
}

TEST_F(CatalogFileTest, EmptyFileIsRefusedAndKept) {
  WriteBytes(path_, "");
  ExpectError(OpenError(), ErrorKind::kBadInput, path_, "remove it");
  EXPECT_EQ(CountEntries(directory_), 1u);
}

TEST_F(CatalogFileTest, NotADatabase) {
  for (const std::string& bytes : {std::string("x"), std::string(5000, 'x')}) {
    WriteBytes(path_, bytes);
    ExpectError(OpenError(), ErrorKind::kBadInput, path_, "is not a mergepipe catalog");
    EXPECT_EQ(ReadBytes(path_), bytes);
  }
}

TEST_F(CatalogFileTest, DatabaseOfAnotherProgram) {
  for (const char* mode : {"DELETE", "WAL"}) {
    path_ = InDirectory(mode);
    Database(path_).Run(std::string("PRAGMA journal_mode = ") + mode +
                        "; PRAGMA application_id = 7; CREATE TABLE models (id TEXT)");
    const std::string before = ReadBytes(path_);
    ExpectError(OpenError(), ErrorKind::kBadInput, path_,
                "is not a mergepipe catalog (application_id 7)");
    EXPECT_EQ(ReadBytes(path_), before);
  }
}

TEST_F(CatalogFileTest, NewerSchema) {
  MakeCatalog();
  Database(path_).Run("PRAGMA user_version = 99");
  ExpectError(
      OpenError(), ErrorKind::kBadInput, path_,
      "newer mergepipe (schema 99, this one knows " + std::to_string(SchemaVersion()) + ")");
  Database(path_).Run("PRAGMA user_version = -1");
  ExpectError(OpenError(), ErrorKind::kBadInput, path_, "damaged");
}

TEST_F(CatalogFileTest, EveryOlderSchemaMigrates) {
  for (int64_t version = 0; version < SchemaVersion(); ++version) {
    path_ = InDirectory("v" + std::to_string(version));
    WriteBytes(path_, "");
    {
      const auto connection = Connection::Open(path_, path_, kShort);
      ASSERT_TRUE(Succeeded(CreateSchema(**connection, version)));
    }
    const auto catalog = Catalog::Open(path_);
    ASSERT_TRUE(Succeeded(catalog));
    EXPECT_TRUE(Succeeded((*catalog)->PutModels({RichModel("m")})));
    EXPECT_TRUE(Succeeded((*catalog)->CheckIntegrity()));
    EXPECT_EQ(Database(path_).Text("PRAGMA user_version"), std::to_string(SchemaVersion()));
  }
}

TEST_F(CatalogFileTest, FailedMigrationChangesNothing) {
  Database(path_).Run("PRAGMA application_id = " + std::to_string(kCatalogApplicationId) +
                      "; CREATE TABLE runs (x)");
  const std::string before = ReadBytes(path_);
  ExpectError(OpenError(), ErrorKind::kBadInput, path_, "damaged");
  EXPECT_EQ(ReadBytes(path_), before);
}

TEST_F(CatalogFileTest, OrphanJournalIsNotPlayedIntoANewCatalog) {
  WriteBytes(path_ + "-journal", "whatever");
  ExpectError(OpenError(), ErrorKind::kBadInput, path_, "move the journal away");
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(CatalogFileTest, SomebodyElsesCatalogStays) {
  ASSERT_TRUE(Succeeded(MakeCatalog()->PutModels({PlainModel("theirs", "x", 1)})));
  ASSERT_TRUE(Succeeded(CreateCatalogFile(path_, kShort)));
  EXPECT_EQ(MakeCatalog()->ModelIds().value(), std::vector<std::string>{"theirs"});
  EXPECT_EQ(CountEntries(directory_), 1u);
}

TEST_F(CatalogFileTest, LockedByAnotherConnection) {
  auto catalog = OpenCatalog(path_, IfAbsent::kCreate, kShort).value();
  Database other(path_);
  other.Run("BEGIN IMMEDIATE");
  EXPECT_TRUE(Succeeded(catalog->ModelIds()));
  ExpectError(catalog->PutModels({PlainModel("m", "x", 1)}).error(), ErrorKind::kIo, path_,
              "is locked by another process; wait for it or choose another --db");
  other.Run("COMMIT; BEGIN EXCLUSIVE");
  ExpectError(catalog->ModelIds().error(), ErrorKind::kIo, path_, "is locked");
  ExpectError(OpenCatalog(path_, IfAbsent::kFail, kShort).error(), ErrorKind::kIo, path_,
              "is locked");
  other.Run("COMMIT");
  EXPECT_TRUE(Succeeded(catalog->PutModels({PlainModel("m", "x", 1)})));
}

TEST_F(CatalogFileTest, WritersWaitLongerThanReaders) {
  using Clock = std::chrono::steady_clock;
  const ModelRecord model = PlainModel("m", "x", 1);
  const auto catalog = OpenCatalog(path_, IfAbsent::kCreate, 2 * kShort).value();
  ASSERT_TRUE(Succeeded(catalog->PutModels({model})));
  // One that keeps all others away, and a reader, which keeps a writer from its commit.
  for (const char* lock : {"BEGIN EXCLUSIVE", "BEGIN; SELECT count(*) FROM models"}) {
    for (size_t call = 0; call < 4; ++call) {
      SCOPED_TRACE(lock + std::string(", call ") + std::to_string(call));
      Database other(path_);
      other.Run(lock);
      const auto start = Clock::now();
      std::thread release([&] {
        std::this_thread::sleep_for(6 * kShort);
        other.Run("COMMIT");
      });
      const StatisticsBatch batch{{}, model.id, 7, {{0, MakeBaseBlocks(5, 2)}}, {&model}};
      const RunRecord run = MakeRun("r", "/out", "2026-02-03T13:00:00Z");
      const std::string plan = lock;
      const Status put = call == 0   ? catalog->PutModels({model})
                         : call == 1 ? catalog->PutStatistics(batch)
                         : call == 2 ? catalog->PutPlan(plan, "hash", "{}")
                                     : catalog->PutRun(run);
      EXPECT_GE(Clock::now() - start, 6 * kShort);
      release.join();
      EXPECT_TRUE(Succeeded(put));
    }
  }
}

TEST_F(CatalogFileTest, ReadersAreAsImpatientAfterAWriteAsBefore) {
  using Clock = std::chrono::steady_clock;
  const auto catalog = OpenCatalog(path_, IfAbsent::kCreate, 2 * kShort).value();
  Database other(path_);
  const auto expect_impatient = [&] {
    const auto start = Clock::now();
    ExpectError(catalog->ModelIds().error(), ErrorKind::kIo, path_, "is locked");
    EXPECT_LT(Clock::now() - start, 20 * kShort);  // a writer waits 24
  };
  ASSERT_TRUE(Succeeded(catalog->PutModels({PlainModel("m", "x", 1)})));
  other.Run("BEGIN EXCLUSIVE");
  expect_impatient();
  const auto start = Clock::now();
  ExpectError(catalog->PutModels({PlainModel("n", "x", 1)}).error(), ErrorKind::kIo, path_,
              "is locked");
  EXPECT_GT(Clock::now() - start, 20 * kShort);
  expect_impatient();
  other.Run("COMMIT");
  // One that is rolled back.
  ModelRecord refused = PlainModel("m", "x", 1);
  refused.layout.path = "/elsewhere";
  EXPECT_FALSE(catalog->PutModels({refused}).has_value());
  other.Run("BEGIN EXCLUSIVE");
  expect_impatient();
  other.Run("COMMIT");
}

/// Runs `body` as a user without rights, if this one can become one, and gives its exit code.
template <typename Body>
int AsNobody(Body body) {
  const pid_t child = fork();
  if (child == 0) {
    if (getuid() == 0 && setuid(65534) != 0) _exit(99);
    body();
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(CatalogFileTest, ReadOnlyFileReadsButDoesNotWrite) {
  const ModelRecord m = RichModel("m");
  const StatisticsBatch statistics{{}, "m", 7, {{0, MakeBaseBlocks(5, 1)}}, {&m}};
  {
    const auto catalog = MakeCatalog();
    ASSERT_TRUE(Succeeded(catalog->PutModels({RichModel("m")})));
    ASSERT_TRUE(Succeeded(catalog->PutStatistics(statistics)));
  }
  ASSERT_EQ(chmod(directory_.c_str(), 0777), 0);
  ASSERT_EQ(chmod(path_.c_str(), 0444), 0);
  EXPECT_EQ(
      AsNobody([&] {
        const auto catalog = MakeCatalog();
        EXPECT_TRUE(SameLayout(catalog->FindModel("m").value()->layout, RichModel("m").layout));
        EXPECT_EQ(catalog->ReadBaseStatistics("m", 7, 0).value(), MakeBaseBlocks(5, 1));
        ExpectError(catalog->PutModels({RichModel("n")}).error(), ErrorKind::kIo, path_,
                    "read-only");
        ExpectError(catalog->PutStatistics(statistics).error(), ErrorKind::kIo, path_, "read-only");
      }),
      0);
}

TEST_F(CatalogFileTest, ReadOnlyDirectory) {
  ASSERT_TRUE(Succeeded(MakeCatalog()->PutModels({RichModel("m")})));
  ASSERT_EQ(chmod(path_.c_str(), 0666), 0);
  ASSERT_EQ(chmod(directory_.c_str(), 0555), 0);
  EXPECT_EQ(
      AsNobody([&] {
        const auto catalog = MakeCatalog();
        EXPECT_TRUE(SameLayout(catalog->FindModel("m").value()->layout, RichModel("m").layout));
        ExpectError(catalog->PutModels({RichModel("n")}).error(), ErrorKind::kIo, path_,
                    "read-only");
        path_ = InDirectory("new");
        ExpectError(OpenError(), ErrorKind::kIo, path_, "cannot create");
      }),
      0);
  chmod(directory_.c_str(), 0755);
}

TEST_F(CatalogFileTest, UnreadableFile) {
  MakeCatalog();
  ASSERT_EQ(chmod(directory_.c_str(), 0755), 0);
  ASSERT_EQ(chmod(path_.c_str(), 0), 0);
  EXPECT_EQ(AsNobody([&] { ExpectError(OpenError(), ErrorKind::kIo, path_, "Permission denied"); }),
            0);
}

}  // namespace
}  // namespace mergepipe
