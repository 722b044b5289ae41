#include "mergepipe/format/output_layout.h"

#include <gtest/gtest.h>

#include "format/model_files.h"

namespace mergepipe {
namespace {

// A model in directory "x" with files of these names, and no tensors.
ModelLayout WithFiles(const std::vector<std::string>& names) {
  ModelLayout base;
  base.path = base.directory = "x";
  for (const std::string& name : names) base.files.emplace_back().name = name;
  return base;
}

ModelLayout ThreeFiles() {
  ModelLayout base = WithFiles({"s1", "s2", "s3"});
  base.index_name = "model.safetensors.index.json";
  base.files[0].metadata = {{"format", "pt"}};
  base.tensors = {{"w", DType::kBF16, {3, 5}, 0, 100},
                  {"ids", DType::kI64, {2}, 0, 130},
                  {"empty", DType::kF32, {0}, 2, 77},
                  {"scale", DType::kF32, {}, 2, 77}};
  return base;
}

// What a reader makes of file `number`.
SafetensorsHeader Parsed(const OutputLayout& output, size_t number) {
  const OutputFile& file = output.files[number];
  const auto header = ParseSafetensorsHeader(std::string_view(file.header).substr(8),
                                             file.size - file.data_begin(), file.name);
  if (!header) ADD_FAILURE() << header.error().ToString();
  return *header;
}

TEST(ComputeOutputLayout, KeepsFilesOrderAndDTypes) {
  const ModelLayout base = ThreeFiles();
  const auto output = ComputeOutputLayout(base, std::nullopt);
  ASSERT_TRUE(output) << output.error().ToString();
  EXPECT_EQ(output->index_name, base.index_name);
  ASSERT_EQ(output->files.size(), 3u);
  EXPECT_EQ(output->files[0].name, "s1");
  EXPECT_EQ(output->files[0].size, 4096u + 30 + 16);
  EXPECT_EQ(output->files[1].size, 4096u);
  EXPECT_EQ(output->files[2].size, 4096u + 4);
  EXPECT_EQ(output->tensors[0].offset, 4096u);
  EXPECT_EQ(output->tensors[1].offset, 4096u + 30);
  EXPECT_EQ(output->tensors[3].offset, 4096u);
  EXPECT_EQ(output->WeightBytes(), base.WeightBytes());
  EXPECT_EQ(Parsed(*output, 0).metadata, base.files[0].metadata);
  EXPECT_EQ(Parsed(*output, 0).entries[1], (SafetensorsEntry{"ids", DType::kI64, {2}, 30, 46}));
  EXPECT_EQ(Parsed(*output, 2).entries[0].name, "empty");
}

TEST(ComputeOutputLayout, ConvertsFloatsOnly) {
  const auto output = ComputeOutputLayout(ThreeFiles(), DType::kF32);
  ASSERT_TRUE(output) << output.error().ToString();
  EXPECT_EQ(output->tensors[0].dtype, DType::kF32);
  EXPECT_EQ(output->tensors[0].bytes(), 60u);
  EXPECT_EQ(output->tensors[1].dtype, DType::kI64);
  EXPECT_EQ(output->tensors[1].offset, 4096u + 60);
  EXPECT_EQ(Parsed(*output, 0).entries[0].end, 60u);
}

TEST(ComputeOutputLayout, NamesASingleFileAsTransformersDoes) {
  ModelLayout base = WithFiles({"w.safetensors"});
  base.is_directory = false;
  const auto output = ComputeOutputLayout(base, std::nullopt);
  ASSERT_TRUE(output);
  EXPECT_EQ(output->files[0].name, "model.safetensors");
  EXPECT_EQ(output->files[0].size, 4096u);
}

TEST(ComputeOutputLayout, RefusesOverflow) {
  ModelLayout base = WithFiles({"f"});
  base.tensors = {{"big", DType::kBF16, {uint64_t{1} << 62}, 0, 0}};
  EXPECT_TRUE(Says(Problems(ComputeOutputLayout(base, DType::kF32)),
                   "x/f: its output is more than 2^64 bytes"));
  base.tensors = {{"a", DType::kU8, {uint64_t{1} << 63}, 0, 0},
                  {"b", DType::kU8, {uint64_t{1} << 63}, 0, 0}};
  EXPECT_TRUE(Says(Problems(ComputeOutputLayout(base, {})), "more than 2^64 bytes"));
  base.tensors = {{"a", DType::kU8, {UINT64_MAX}, 0, 0}};
  EXPECT_TRUE(Says(Problems(ComputeOutputLayout(base, {})), "more than 2^64 bytes"));
}

TEST(ComputeOutputLayout, RefusesAnOutputTypeThatIsNoFloat) {
  const auto output = ComputeOutputLayout(ThreeFiles(), DType::kI8);
  ASSERT_FALSE(output);
  EXPECT_EQ(output.error().kind(), ErrorKind::kInternal);
}

TEST(IndexText, KeepsMetadataAndSetsTotalSize) {
  const auto output = ComputeOutputLayout(ThreeFiles(), DType::kF32);
  ASSERT_TRUE(output);
  const auto text = IndexText(
      *output, R"({"weight_map":{"old":"x"},"metadata":{"total_parameters":18,"total_size":1}})",
      "i");
  ASSERT_TRUE(text) << text.error().ToString();
  EXPECT_EQ(*text, R"({
  "metadata": {
    "total_parameters": 18,
    "total_size": 80
  },
  "weight_map": {
    "empty": "s3",
    "ids": "s1",
    "scale": "s3",
    "w": "s1"
  }
}
)");
}

TEST(IndexText, DoesWithoutMetadataAndRefusesDamage) {
  const auto output = ComputeOutputLayout(ThreeFiles(), std::nullopt);
  ASSERT_TRUE(output);
  EXPECT_TRUE(Says(*IndexText(*output, R"({"weight_map":{}})", "i"), "\"total_size\": 50"));
  EXPECT_TRUE(Says(*IndexText(*output, R"({"metadata":null})", "i"), "\"total_size\": 50"));
  EXPECT_TRUE(Says(Problems(IndexText(*output, "[", "i")), "i: not a JSON object"));
}

TEST(IndexText, IsReadBack) {
  const TempDirectory directory;
  directory.Write("s2", SafetensorsBytes({"a", "b"}));
  directory.Write("s1", SafetensorsBytes({"c"}));
  const std::string index = R"({"weight_map":{"a":"s2","b":"s2","c":"s1"}})";
  directory.Write("model.safetensors.index.json", index);
  const auto base = ReadModel(PosixFileSystem(), directory.path());
  ASSERT_TRUE(base) << base.error().ToString();
  const auto output = ComputeOutputLayout(*base, DType::kF16);
  ASSERT_TRUE(output);

  const TempDirectory out;
  for (const OutputFile& file : output->files) {
    out.Write(file.name, file.header + std::string(file.size - file.data_begin(), '\0'));
  }
  out.Write(*output->index_name, *IndexText(*output, index, "i"));
  const auto again = ReadModel(PosixFileSystem(), out.path());
  ASSERT_TRUE(again) << again.error().ToString();
  EXPECT_EQ(again->tensors, output->tensors);
}

}  // namespace
}  // namespace mergepipe
