#include "catalog/catalog_fixture.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>

namespace mergepipe {

ModelRecord PlainModel(const std::string& id, const std::string& tag, int tensors) {
  ModelRecord model;
  model.id = id;
  model.fingerprint = HashText(id + tag);
  model.registered_at = "2026-02-03T10:15:00Z";
  model.layout.path = "/models/" + id;
  model.layout.directory = model.layout.path;
  ModelFile file;
  file.name = "model.safetensors";
  file.info = {FileKind::kRegular, uint64_t{64} * static_cast<uint64_t>(tensors) + 1000, 1, 2, 3};
  file.data_begin = 1000;
  file.header_hash = HashText(tag);
  file.metadata["tag"] = tag;
  model.layout.files.push_back(file);
  for (int i = 0; i < tensors; ++i) {
    model.layout.tensors.push_back({.name = "layers." + std::to_string(i) + "." + tag,
                                    .dtype = DType::kF32,
                                    .shape = {4, 4},
                                    .file = 0,
                                    .offset = 1000 + 64 * static_cast<uint64_t>(i)});
  }
  return model;
}

ModelRecord RichModel(const std::string& id) {
  ModelRecord model = PlainModel(id, "rich", 0);
  ModelLayout& layout = model.layout;
  layout.directory = "/models/専門家 'quoted\" \xff";
  layout.path = layout.directory + "/";
  layout.index_name = "model.safetensors.index.json";
  layout.config = {.present = true, .tie_word_embeddings = true, .quantization = "gptq"};
  layout.files[0].name = "model-00001-of-00002.safetensors";
  layout.files[0].metadata = {{"format", "pt"}, {"", "empty name"}, {"leer", ""}, {"ключ", "値\n"}};
  ModelFile second = layout.files[0];
  second.name = "model-00002-of-00002.safetensors";
  second.metadata.clear();
  second.info = {FileKind::kOther, INT64_MAX, INT64_MIN, UINT64_MAX, UINT64_MAX - 1};
  second.header_hash = {UINT64_MAX, 0};
  layout.files.push_back(second);
  for (int i = 0; i <= static_cast<int>(DType::kBool); ++i) {
    const auto dtype = static_cast<DType>(i);
    const std::string name = "w." + std::string(DTypeName(dtype));
    layout.tensors.push_back({name, dtype, {2, 3}, 0, 4096 + 64 * static_cast<uint64_t>(i)});
  }
  layout.tensors.push_back({"rank0", DType::kF32, {}, 1, 0});
  layout.tensors.push_back({"empty", DType::kF32, {0, 5}, 1, INT64_MAX});
  layout.tensors.push_back({"", DType::kU8, {1}, 1, 7});
  layout.tensors.push_back({std::string("nul\0inside", 10), DType::kU8, {1, 1, 1}, 1, 8});
  layout.tensors.push_back({"größe.重み.🧪", DType::kBF16, {uint64_t{1} << 40}, 1, 9});
  return model;
}

std::vector<const ModelRecord*> PointersTo(const std::vector<ModelRecord>& models) {
  std::vector<const ModelRecord*> pointers;
  for (const ModelRecord& model : models) pointers.push_back(&model);
  return pointers;
}

bool SameLayout(const ModelLayout& a, const ModelLayout& b) {
  return a.path == b.path && a.directory == b.directory && a.is_directory == b.is_directory &&
         a.files == b.files && a.tensors == b.tensors && a.index_name == b.index_name &&
         a.config == b.config;
}

RunRecord MakeRun(const std::string& run_id, const std::string& output,
                  const std::string& finished_at) {
  return {run_id, "0123456789abcdef", "hash",     "out-model",
          output, "/runs/" + run_id,  "manifest", finished_at};
}

std::vector<BlockStatistics> MakeBlocks(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<BlockStatistics> blocks(count);
  for (BlockStatistics& block : blocks) {
    block.sum_squares = static_cast<double>(random()) * 1e-3;
    block.max_abs = static_cast<float>(random() % 1000) * 0.37F;
    block.nonzeros = static_cast<uint32_t>(random());
    for (int8_t& value : block.sketch) value = static_cast<int8_t>(random() % 255 - 127);
    block.hash = {random(), random()};
  }
  if (count > 0) blocks[0] = {};
  if (count > 1) blocks[1].max_abs = std::numeric_limits<float>::infinity();
  if (count > 2) blocks[2].sum_squares = std::numeric_limits<double>::denorm_min();
  if (count > 3) blocks[3].sum_squares = std::numeric_limits<double>::max();
  return blocks;
}

std::vector<BaseBlockStatistics> MakeBaseBlocks(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<BaseBlockStatistics> blocks(count);
  for (BaseBlockStatistics& block : blocks) {
    block.sum_squares = static_cast<double>(random()) * 1e-3;
    block.hash = {random(), random()};
  }
  return blocks;
}

std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << bytes;
}

Database::Database(const std::string& path) {
  sqlite3* db = nullptr;
  EXPECT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  db_.reset(db);
}

void Database::Run(const std::string& sql) {
  EXPECT_EQ(sqlite3_exec(db_.get(), sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK)
      << sql << ": " << sqlite3_errmsg(db_.get());
}

std::string Database::Text(const std::string& sql) {
  std::string text;
  const auto keep = [](void* out, int, char** values, char**) {
    *static_cast<std::string*>(out) = values[0] == nullptr ? "" : values[0];
    return 0;
  };
  EXPECT_EQ(sqlite3_exec(db_.get(), sql.c_str(), keep, &text, nullptr), SQLITE_OK) << sql;
  return text;
}

CatalogTest::CatalogTest() {
  std::string name = testing::TempDir() + "catalog_test_XXXXXX";
  EXPECT_NE(mkdtemp(name.data()), nullptr);
  directory_ = name;
  path_ = InDirectory("mergedb.sqlite");
}

CatalogTest::~CatalogTest() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

std::unique_ptr<Catalog> CatalogTest::MakeCatalog() {
  auto catalog = Catalog::OpenOrCreate(path_);
  EXPECT_TRUE(Succeeded(catalog));
  return std::move(catalog).value();
}

Error CatalogTest::OpenError() {
  const auto catalog = Catalog::OpenOrCreate(path_);
  EXPECT_FALSE(catalog.has_value());
  return catalog ? Error(ErrorKind::kInternal, path_, "opened") : catalog.error();
}

void ExpectError(const Error& error, ErrorKind kind, const std::string& path,
                 const std::string& what) {
  EXPECT_EQ(ErrorKindName(error.kind()), ErrorKindName(kind)) << error.ToString();
  EXPECT_EQ(error.problems().front().subject, path);
  EXPECT_NE(error.ToString().find(what), std::string::npos) << error.ToString();
}

}  // namespace mergepipe
