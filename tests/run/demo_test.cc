#include "mergepipe/run/demo.h"

#include <gtest/gtest.h>
#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <tuple>

#include "mergepipe/base/hash.h"
#include "mergepipe/format/model.h"
#include "run/demo_shapes.h"
#include "run/demo_weights.h"

namespace mergepipe {
namespace {

namespace fs = std::filesystem;

using Contents = std::map<std::string, std::string>;  // name -> bytes

Contents FilesBelow(const fs::path& directory) {
  Contents contents;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    contents[fs::relative(entry.path(), directory)] = {std::istreambuf_iterator<char>(in), {}};
  }
  return contents;
}

Contents TensorsOf(const std::string& model) {
  FileSystem& files = PosixFileSystem();
  const auto layout = ReadModel(files, model);
  if (!layout) {
    ADD_FAILURE() << layout.error().ToString();
    return {};
  }
  Contents contents;
  for (const TensorInfo& tensor : layout->tensors) {
    std::string bytes(tensor.bytes(), '\0');
    const auto file = files.OpenForReading(layout->FilePath(tensor.file));
    EXPECT_TRUE((*file)->ReadAt(tensor.offset, std::as_writable_bytes(std::span(bytes))));
    contents[tensor.name] = std::move(bytes);
  }
  return contents;
}

// How many pieces of `size` bytes are the same in both, and how many there are.
struct Compared {
  size_t same = 0;
  size_t all = 0;
};
Compared ComparePieces(const std::string& a, const std::string& b, size_t size) {
  Compared compared;
  for (size_t begin = 0; begin < a.size(); begin += size) {
    compared.same += a.compare(begin, size, b, begin, size) == 0 ? 1 : 0;
    ++compared.all;
  }
  return compared;
}

bool IsOfLayer(const std::string& name, uint32_t layer) {
  return name.starts_with("model.layers." + std::to_string(layer) + ".");
}

std::vector<std::string> Subjects(const Error& error) {
  std::vector<std::string> subjects;
  for (const Problem& problem : error.problems()) subjects.push_back(problem.subject);
  return subjects;
}

// Forwards to the real file system, but for the free space; creating and renaming fails after the
// first `writes` times.
class FailingFileSystem final : public FileSystem {
 public:
  using FilePtr = std::unique_ptr<WritableFile>;

  explicit FailingFileSystem(int writes, uint64_t free = UINT64_MAX)
      : writes_(writes), free_(free) {}

  Result<std::unique_ptr<ReadableFile>> OpenForReading(const std::string& path) override {
    return real_.OpenForReading(path);
  }
  Result<FilePtr> Create(const std::string& path, uint64_t size) override {
    if (--writes_ < 0) return Fail(ErrorKind::kNoSpace, path, "cannot create: injected");
    return real_.Create(path, size);
  }
  Result<FilePtr> OpenForWriting(const std::string& path) override {
    return real_.OpenForWriting(path);
  }
  Result<FileInfo> Stat(const std::string& path) override { return real_.Stat(path); }
  Result<bool> Exists(const std::string& path) override { return real_.Exists(path); }
  Result<std::vector<DirectoryEntry>> List(const std::string& path) override {
    return real_.List(path);
  }
  Status CreateDirectories(const std::string& path) override {
    return real_.CreateDirectories(path);
  }
  Result<bool> CreateDirectory(const std::string& path) override {
    return real_.CreateDirectory(path);
  }
  Status SyncDirectory(const std::string& path) override { return real_.SyncDirectory(path); }
  Status Rename(const std::string& from, const std::string& to, RenameMode mode) override {
    if (--writes_ < 0) return Fail(ErrorKind::kIo, to, "cannot rename to it: injected");
    return real_.Rename(from, to, mode);
  }
  Status Remove(const std::string& path) override { return real_.Remove(path); }
  Result<uint64_t> FreeSpace(const std::string&) override { return free_; }
  Result<std::unique_ptr<FileLock>> Lock(const std::string& path) override {
    return real_.Lock(path);
  }

 private:
  FileSystem& real_ = PosixFileSystem();
  int writes_;
  uint64_t free_;
};

class DemoTest : public testing::Test {
 protected:
  DemoTest() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    root_ = fs::temp_directory_path() /
            ("mergepipe_demo_" + std::to_string(::getpid()) + "_" + test->name());
    fs::remove_all(root_);
  }
  ~DemoTest() override { fs::remove_all(root_); }

  DemoOptions Options(const std::string& directory) const {
    DemoOptions options;
    options.directory = root_ / directory;
    return options;
  }
  static DemoFamily Make(const DemoOptions& options) {
    auto family = MakeDemoFamily(PosixFileSystem(), options);
    if (!family) ADD_FAILURE() << family.error().ToString();
    return family ? *family : DemoFamily{};
  }
  static Error MustFail(const DemoOptions& options) {
    auto family = MakeDemoFamily(PosixFileSystem(), options);
    EXPECT_FALSE(family);
    return family ? Error(ErrorKind::kInternal, "", "did not fail") : family.error();
  }

  fs::path root_;
};

TEST_F(DemoTest, TinyModelsHaveTheTensorsOfTheirArchitecture) {
  for (const auto& [shape, head, q_norm] :
       {std::tuple{"llama", true, false}, std::tuple{"qwen3", false, true}}) {
    DemoOptions options = Options(shape);
    options.shape = shape;
    const DemoFamily family = Make(options);
    ASSERT_EQ(family.experts.size(), 2u);
    for (const std::string& model : {family.base, family.experts[0], family.experts[1]}) {
      const Contents tensors = TensorsOf(model);
      EXPECT_TRUE(tensors.contains("model.embed_tokens.weight"));
      EXPECT_TRUE(tensors.contains("model.layers.3.mlp.down_proj.weight"));
      EXPECT_EQ(tensors.contains("lm_head.weight"), head);
      EXPECT_EQ(tensors.contains("model.layers.0.self_attn.q_norm.weight"), q_norm);
      EXPECT_EQ(ReadModel(PosixFileSystem(), model)->config.tie_word_embeddings, !head);
    }
  }
}

TEST_F(DemoTest, SizesAreThoseOfThePublishedModels) {
  std::map<std::string, uint64_t> parameters;
  for (const DemoSize& size : DemoSizes()) parameters[size.shape + size.name] = size.parameters;
  EXPECT_EQ(parameters["qwen30.6b"], 596'049'920u);
  EXPECT_EQ(parameters["llama1b"], 1'100'048'384u);
  EXPECT_EQ(parameters["llama8b"], 8'030'261'248u);
  EXPECT_EQ(parameters["llama70b"], 70'553'706'496u);
  EXPECT_EQ(parameters["qwen38b"], 8'190'735'360u);
}

TEST_F(DemoTest, BytesAreAFunctionOfTheSeed) {
  Make(Options("a"));
  Make(Options("b"));
  DemoOptions other = Options("c");
  other.seed = 1;
  Make(other);

  const Contents a = FilesBelow(root_ / "a");
  EXPECT_EQ(a.size(), 3u * 6);  // nothing else is left there
  EXPECT_EQ(a, FilesBelow(root_ / "b"));
  const Contents c = FilesBelow(root_ / "c");
  for (const char* model : {"base", "expert_1", "expert_2"}) {
    const std::string weights = std::string(model) + "/model.safetensors";
    EXPECT_NE(a.at(weights), c.at(weights));
  }
}

// The values of all machines and versions: measurements of different ones can be compared.
TEST_F(DemoTest, ValuesAreTheseOnEveryMachine) {
  const DemoFamily family = Make(Options("a"));
  const auto hash = [](const std::string& model) {
    std::string all;
    for (const auto& [name, bytes] : TensorsOf(model)) all += name + bytes;
    return HashText(all).ToHex();
  };
  EXPECT_EQ(hash(family.base), "d604354e1c28a7324b2f1d4a0c01d27a");
  EXPECT_EQ(hash(family.experts[0]), "d4e6678afd1aab47ee6170b4c0304cb6");
}

TEST_F(DemoTest, BytesWrittenAreCounted) {
  const DemoFamily family = Make(Options("a"));
  uint64_t size = 0;
  for (const auto& [name, bytes] : FilesBelow(root_ / "a")) size += bytes.size();
  EXPECT_EQ(family.bytes_written, Bytes(size));
}

TEST_F(DemoTest, BytesDoNotDependOnTheNumberOfThreads) {
  const int before = omp_get_max_threads();
  for (const int threads : {1, 4}) {
    omp_set_num_threads(threads);
    DemoOptions options = Options(std::to_string(threads));
    options.size = "small";  // tiny is a single piece of work
    options.experts = 1;
    Make(options);
  }
  omp_set_num_threads(before);
  EXPECT_EQ(FilesBelow(root_ / "1"), FilesBelow(root_ / "4"));
}

TEST_F(DemoTest, TensorsDoNotDependOnTheNumberOfShards) {
  const DemoFamily one = Make(Options("one"));
  const size_t most = TensorsOf(one.base).size();
  for (const size_t shards : {size_t{3}, most}) {
    DemoOptions options = Options(std::to_string(shards));
    options.shards = static_cast<uint32_t>(shards);
    const DemoFamily many = Make(options);
    EXPECT_EQ(ReadModel(PosixFileSystem(), many.base)->files.size(), shards);
    EXPECT_EQ(TensorsOf(one.base), TensorsOf(many.base));
    EXPECT_EQ(TensorsOf(one.experts[1]), TensorsOf(many.experts[1]));
  }
}

TEST(DemoShardsTest, AreNearEqualAndInOrder) {
  const auto tensors = DemoTensors(*FindDemoShape("llama", "small"));
  const auto shards = SplitIntoShards(tensors, 4);
  ASSERT_EQ(shards.size(), 4u);
  EXPECT_EQ(shards[1].file, "model-00002-of-00004.safetensors");
  std::vector<std::string> names;
  std::vector<uint64_t> sizes;
  for (const DemoShard& shard : shards) {
    sizes.push_back(DemoDataBytes(shard, DType::kBF16));
    for (const DemoTensor& tensor : shard.tensors) names.push_back(tensor.name);
  }
  EXPECT_LT(*std::ranges::max_element(sizes), 2 * *std::ranges::min_element(sizes));
  ASSERT_EQ(names.size(), tensors.size());
  for (size_t i = 0; i < names.size(); ++i) EXPECT_EQ(names[i], tensors[i].name);
}

TEST_F(DemoTest, ExpertsDifferFromTheBaseInMostPlacesButNotInAll) {
  const DemoFamily family = Make(Options("a"));
  const Contents base = TensorsOf(family.base);
  for (uint32_t k = 1; k <= 2; ++k) {
    const Contents expert = TensorsOf(family.experts[k - 1]);
    Compared total;
    for (const auto& [name, bytes] : base) {
      const Compared here = ComparePieces(bytes, expert.at(name), 512);
      if (IsOfLayer(name, k)) {
        EXPECT_EQ(here.same, here.all) << name;  // the expert's frozen layer
      } else if (name == "model.embed_tokens.weight") {
        EXPECT_GT(here.same * 4, here.all * 3);
        EXPECT_LT(here.same, here.all);
      } else if (name.ends_with("_proj.weight")) {
        EXPECT_LT(here.same, here.all) << name;
      }
      total.same += here.same;
      total.all += here.all;
    }
    EXPECT_GT(total.same * 10, total.all);
    EXPECT_LT(total.same * 2, total.all);
  }
}

TEST_F(DemoTest, EveryFloatTypeIsWritten) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16}) {
    DemoOptions options = Options(std::string(DTypeName(dtype)));
    options.dtype = dtype;
    const DemoFamily family = Make(options);
    const auto layout = ReadModel(PosixFileSystem(), family.base);
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->tensors.front().dtype, dtype);
    const std::string config = FilesBelow(family.base).at("config.json");
    EXPECT_NE(config.find('"' + std::string(TorchName(dtype)) + '"'), std::string::npos);
  }
}

TEST_F(DemoTest, RefusesBadOptionsTogether) {
  DemoOptions options = Options("a");
  options.size = "tinny";
  options.experts = 0;
  options.shards = 0;
  options.dtype = DType::kI32;
  const Error error = MustFail(options);
  EXPECT_EQ(error.kind(), ErrorKind::kUsage);
  EXPECT_EQ(Subjects(error),
            (std::vector<std::string>{"--size", "--experts", "--dtype", "--shards"}));
  EXPECT_NE(error.ToString().find("did you mean tiny?"), std::string::npos);
  EXPECT_NE(error.ToString().find("choose one of tiny, small, 1b, 8b, 70b"), std::string::npos);
  EXPECT_FALSE(fs::exists(root_));
}

TEST_F(DemoTest, RefusesAnUnknownShapeAndTooManyShards) {
  DemoOptions options = Options("a");
  options.shape = "gpt2";
  EXPECT_EQ(Subjects(MustFail(options)), std::vector<std::string>{"--shape"});
  options.shape = "qwen3";
  options.shards = 47;  // of 46 tensors
  const Error error = MustFail(options);
  EXPECT_EQ(Subjects(error), std::vector<std::string>{"--shards"});
  EXPECT_NE(error.ToString().find("at most 46"), std::string::npos);
}

TEST_F(DemoTest, RefusesExistingModels) {
  const DemoOptions options = Options("a");
  Make(options);
  fs::remove_all(root_ / "a" / "base");
  const Error error = MustFail(options);
  EXPECT_EQ(error.kind(), ErrorKind::kUsage);
  EXPECT_EQ(Subjects(error),
            (std::vector<std::string>{root_ / "a" / "expert_1", root_ / "a" / "expert_2"}));
  EXPECT_NE(error.ToString().find("exists; choose another directory"), std::string::npos);
  EXPECT_FALSE(fs::exists(root_ / "a" / "base"));
}

TEST_F(DemoTest, RefusesAFullDiskBeforeItWrites) {
  FailingFileSystem files(0, 1000);
  const auto family = MakeDemoFamily(files, Options("a"));
  ASSERT_FALSE(family);
  EXPECT_EQ(family.error().kind(), ErrorKind::kNoSpace);
  EXPECT_NE(family.error().ToString().find("1000 B are free"), std::string::npos);
  EXPECT_FALSE(fs::exists(root_));
}

// Whichever creation or renaming fails, no model is left, and the same options work afterwards.
TEST_F(DemoTest, LeavesNothingBehindOnAnError) {
  const DemoOptions options = Options("a");
  constexpr int kOperations = 3 * 6 + 3;
  for (int writes = 0; writes < kOperations; ++writes) {
    FailingFileSystem files(writes);
    ASSERT_FALSE(MakeDemoFamily(files, options)) << writes;
    EXPECT_TRUE(fs::is_empty(options.directory)) << writes;
  }
  FailingFileSystem files(kOperations);
  EXPECT_TRUE(MakeDemoFamily(files, options));
}

TEST_F(DemoTest, ReplacesWhatAKilledDemoLeft) {
  const DemoOptions options = Options("a");
  fs::create_directories(root_ / "a" / ".base.mergepipe-demo");
  std::ofstream(root_ / "a" / ".base.mergepipe-demo" / "config.json") << "{";
  Make(options);
  EXPECT_EQ(FilesBelow(root_ / "a").size(), 3u * 6);
  EXPECT_FALSE(fs::exists(root_ / "a" / ".base.mergepipe-demo"));
}

}  // namespace
}  // namespace mergepipe
