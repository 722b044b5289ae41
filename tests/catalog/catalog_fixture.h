#pragma once

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mergepipe/catalog/catalog.h"

namespace mergepipe {

/// A record with every dtype, rank-0 and empty shapes, names outside ASCII, two files, metadata and
/// config.
ModelRecord RichModel(const std::string& id);
/// A record with one file and `tensors` tensors whose names contain `tag`.
ModelRecord PlainModel(const std::string& id, const std::string& tag, int tensors);
std::vector<const ModelRecord*> PointersTo(const std::vector<ModelRecord>& models);
/// Whether every field is equal.
bool SameLayout(const ModelLayout& a, const ModelLayout& b);
RunRecord MakeRun(const std::string& run_id, const std::string& output,
                  const std::string& finished_at);

/// `count` blocks of statistics with all fields set, and extreme values among the first.
std::vector<BlockStatistics> MakeBlocks(size_t count, uint64_t seed);
std::vector<BaseBlockStatistics> MakeBaseBlocks(size_t count, uint64_t seed);

std::string ReadBytes(const std::string& path);
void WriteBytes(const std::string& path, const std::string& bytes);

/// A plain sqlite3 connection, as another program would have it.
class Database {
 public:
  explicit Database(const std::string& path);
  void Run(const std::string& sql);
  std::string Text(const std::string& sql);

 private:
  struct Close {
    void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
  };
  std::unique_ptr<sqlite3, Close> db_;
};

/// A temporary directory with the path of a catalog in it.
class CatalogTest : public testing::Test {
 protected:
  CatalogTest();
  ~CatalogTest() override;

  std::string InDirectory(const std::string& name) const { return directory_ + "/" + name; }
  std::unique_ptr<Catalog> MakeCatalog();
  /// Opens it as it is, which must fail, and gives the error.
  Error OpenError();

  std::string directory_;
  std::string path_;
};

template <typename T>
testing::AssertionResult Succeeded(const Result<T>& result) {
  if (result) return testing::AssertionSuccess();
  return testing::AssertionFailure() << result.error().ToString();
}

/// That `error` has this kind, names `path`, and says `what` somewhere.
void ExpectError(const Error& error, ErrorKind kind, const std::string& path,
                 const std::string& what);

}  // namespace mergepipe
