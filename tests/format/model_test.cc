#include "mergepipe/format/model.h"

#include <gtest/gtest.h>

#include "format/model_files.h"

namespace mergepipe {
namespace {

constexpr const char* kIndex = "model.safetensors.index.json";

class ReadModelTest : public ::testing::Test {
 protected:
  Result<ModelLayout> Read() { return ReadModel(PosixFileSystem(), directory_.path()); }

  // Two shards, with "a" and "b" in the second one and "c" in the first one.
  void WriteShards() {
    directory_.Write("s2", SafetensorsBytes({"a", "b"}));
    directory_.Write("s1", SafetensorsBytes({"c"}));
    WriteIndex(R"("a":"s2","b":"s2","c":"s1")");
  }
  void WriteIndex(const std::string& weight_map) {
    directory_.Write(kIndex,
                     "{\"metadata\":{\"total_size\":24},\"weight_map\":{" + weight_map + "}}");
  }

  TempDirectory directory_;
};

TEST_F(ReadModelTest, ReadsADirectoryWithOneFile) {
  const std::string bytes = SafetensorsBytes({"a", "b"});
  directory_.Write("model.safetensors", bytes);
  directory_.Write("config.json", R"({"tie_word_embeddings":true})");
  const auto model = Read();
  ASSERT_TRUE(model) << model.error().ToString();
  EXPECT_EQ(model->path, directory_.path());
  EXPECT_EQ(model->directory, directory_.path());
  EXPECT_TRUE(model->is_directory);
  EXPECT_EQ(model->index_name, std::nullopt);
  EXPECT_TRUE(model->config.present);
  EXPECT_TRUE(model->config.tie_word_embeddings);
  ASSERT_EQ(model->files.size(), 1u);
  EXPECT_EQ(model->files[0].name, "model.safetensors");
  EXPECT_EQ(model->files[0].info.size, bytes.size());
  EXPECT_EQ(model->files[0].data_begin, 4096u);
  EXPECT_EQ(model->files[0].header_hash, HashText(bytes.substr(0, 4096)));
  EXPECT_EQ(model->files[0].metadata.at("format"), "pt");
  ASSERT_EQ(model->tensors.size(), 2u);
  EXPECT_EQ(model->tensors[1], (TensorInfo{"b", DType::kF32, {2}, 0, 4096 + 8}));
  EXPECT_EQ(model->WeightBytes(), 16u);
}

TEST_F(ReadModelTest, ReadsOneFileWithoutTheConfigBesideIt) {
  const std::string path = directory_.Write("weights.safetensors", SafetensorsBytes({"a"}));
  directory_.Write("config.json", "damaged");
  const auto model = ReadModel(PosixFileSystem(), path);
  ASSERT_TRUE(model) << model.error().ToString();
  EXPECT_FALSE(model->is_directory);
  EXPECT_FALSE(model->config.present);
  EXPECT_EQ(model->directory, directory_.path());
  EXPECT_EQ(model->FilePath(0), path);
}

TEST_F(ReadModelTest, ReadsShardsInIndexOrderThroughLinks) {
  WriteShards();
  std::filesystem::rename(directory_.Path("s1"), directory_.Path("blob"));
  std::filesystem::create_symlink("blob", directory_.Path("s1"));
  const auto model = Read();
  ASSERT_TRUE(model) << model.error().ToString();
  EXPECT_EQ(model->index_name, kIndex);
  ASSERT_EQ(model->files.size(), 2u);
  EXPECT_EQ(model->files[0].name, "s1");
  ASSERT_EQ(model->tensors.size(), 3u);
  EXPECT_EQ(model->tensors[0].name, "c");
  EXPECT_EQ(model->tensors[1].name, "a");
  EXPECT_EQ(model->tensors[1].file, 1u);
}

TEST_F(ReadModelTest, NamesWhatIsNotThere) {
  EXPECT_TRUE(Says(Problems(ReadModel(PosixFileSystem(), directory_.Path("no"))),
                   "no: no such file or directory"));
  EXPECT_TRUE(Says(Problems(Read()), "the directory is empty"));
  directory_.Write("config.json", "{}");
  EXPECT_TRUE(Says(Problems(Read()), "no weights: neither model.safetensors nor"));
}

TEST_F(ReadModelTest, NamesLayoutsThatAreNotSupported) {
  const auto with = [](const char* name) {
    const TempDirectory directory;
    directory.Write(name, "x");
    return Problems(ReadModel(PosixFileSystem(), directory.path()));
  };
  EXPECT_TRUE(Says(with("pytorch_model.bin"),
                   "pytorch_model.bin: a PyTorch checkpoint, not supported yet; convert"));
  EXPECT_TRUE(
      Says(with("pytorch_model.bin.index.json"), "a PyTorch checkpoint, not supported yet"));
  EXPECT_TRUE(Says(with("q4.gguf"), "it holds q4.gguf: a GGUF file"));
  EXPECT_TRUE(Says(with("adapter_config.json"),
                   "a LoRA adapter, not supported yet; merge it into its base first"));
  EXPECT_TRUE(Says(with("adapter_model.safetensors"), "a LoRA adapter"));
  EXPECT_TRUE(Says(with("consolidated.safetensors"), "it holds consolidated.safetensors"));
  EXPECT_TRUE(Says(with("consolidated.safetensors"), "pass the file itself"));
}

TEST_F(ReadModelTest, RefusesFilesThatAreNotSafetensors) {
  const auto read = [&](const char* name) {
    return Problems(ReadModel(PosixFileSystem(), directory_.Write(name, "x")));
  };
  EXPECT_TRUE(Says(read("m.gguf"), "a GGUF file"));
  EXPECT_TRUE(Says(read("pytorch_model.bin"), "a PyTorch checkpoint"));
  EXPECT_TRUE(Says(read(kIndex), "pass its directory"));
  EXPECT_TRUE(Says(read("README.md"), "not a .safetensors file"));
}

TEST_F(ReadModelTest, RefusesBothLayoutsAtOnceUnlessTheyAreTheSame) {
  directory_.Write("model.safetensors", SafetensorsBytes({"a"}));
  WriteIndex(R"("a":"model.safetensors")");
  const auto model = Read();
  ASSERT_TRUE(model) << model.error().ToString();
  EXPECT_EQ(model->index_name, kIndex);
  WriteShards();
  EXPECT_TRUE(Says(Problems(Read()), "both model.safetensors and model.safetensors.index.json"));
}

TEST_F(ReadModelTest, NamesMissingShards) {
  WriteShards();
  std::filesystem::remove(directory_.Path("s1"));
  const std::string problems = Problems(Read());
  EXPECT_TRUE(Says(problems, "it names s1, which is not in the directory"));
  EXPECT_FALSE(Says(problems, "tensor 'c'"));  // not known to be missing
}

TEST_F(ReadModelTest, NamesADanglingShard) {
  WriteShards();
  std::filesystem::remove(directory_.Path("s1"));
  std::filesystem::create_symlink("nothing", directory_.Path("s1"));
  EXPECT_TRUE(Says(Problems(Read()), "/s1"));
}

TEST_F(ReadModelTest, RefusesTensorsOnWhichIndexAndFilesDiffer) {
  WriteShards();
  WriteIndex(R"("a":"s2","b":"s2","c":"s1","d":"s1")");
  EXPECT_TRUE(Says(Problems(Read()), "tensor 'd': it is not in s1, as the index says"));
  WriteIndex(R"("a":"s2","c":"s1")");
  EXPECT_TRUE(Says(Problems(Read()), "tensor 'b': it is in s2, but not in the index"));
  WriteIndex(R"("a":"s2","b":"s1","c":"s1")");
  EXPECT_TRUE(Says(Problems(Read()), "tensor 'b': it is in s2, but the index says s1"));
}

TEST_F(ReadModelTest, RefusesATensorInTwoFiles) {
  WriteShards();
  directory_.Write("s1", SafetensorsBytes({"a", "c"}));
  EXPECT_TRUE(Says(Problems(Read()), "tensor 'a': it is in both s1 and s2"));
}

TEST_F(ReadModelTest, ReportsProblemsOfAllFilesTogether) {
  WriteShards();
  directory_.Write("s1", "short");
  directory_.Write("s2", WithLength("[]"));
  directory_.Write("config.json", "{");
  const std::string problems = Problems(Read());
  EXPECT_TRUE(Says(problems, "s1: a file of 5 bytes"));
  EXPECT_TRUE(Says(problems, "s2: the header does not start"));
  EXPECT_TRUE(Says(problems, "config.json: invalid JSON"));
}

TEST_F(ReadModelTest, RefusesQuantisedModelsByName) {
  directory_.Write("model.safetensors", SafetensorsBytes({"a"}));
  directory_.Write("config.json", R"({"quantization_config":{"quant_method":"gptq"}})");
  EXPECT_TRUE(Says(Problems(Read()), "the weights are quantised ('gptq'), which is not supported"));
}

TEST_F(ReadModelTest, RefusesOversizedConfigAndIndex) {
  directory_.Write("model.safetensors", SafetensorsBytes({"a"}));
  std::filesystem::resize_file(directory_.Write("config.json", "{}"), 16'000'001);
  EXPECT_TRUE(Says(Problems(Read()), "config.json"));
  directory_.Write("config.json", "{}");
  std::filesystem::resize_file(directory_.Write(kIndex, "{}"), 100'000'001);
  EXPECT_TRUE(Says(Problems(Read()), kIndex));
}

}  // namespace
}  // namespace mergepipe
