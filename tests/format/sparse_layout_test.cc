#include <gtest/gtest.h>

#include "format/model_files.h"
#include "mergepipe/format/model.h"
#include "mergepipe/format/sparse.h"

namespace mergepipe {
namespace {

constexpr uint64_t kBlock = 10;
const Hash128 kFingerprint{1, 2};

// The last block of "a" is one element, "scale" has rank 0.
std::vector<SparseTensor> SomeTensors() {
  return {{"none", DType::kF32, {0}, {}},
          {"a", DType::kBF16, {3, 7}, {0, 2}},
          {"untouched", DType::kF32, {50}, {}},
          {"scale", DType::kF32, {}, {0}},
          {"b", DType::kF16, {1000}, {1, 70, 99}}};
}

OutputLayout Layout(const std::vector<SparseTensor>& tensors) {
  auto layout = ComputeSparseLayout(tensors, kBlock, kFingerprint);
  if (!layout) ADD_FAILURE() << layout.error().ToString();
  return *layout;
}

uint64_t HeaderSize(const OutputFile& file) {
  uint64_t length = 0;
  for (size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(file.header[i]);
  return 8 + length;
}

SafetensorsHeader Parsed(const OutputFile& file) {
  const uint64_t begin = HeaderSize(file);
  const auto header = ParseSafetensorsHeader(std::string_view(file.header).substr(8, begin - 8),
                                             file.size - begin, file.name);
  if (!header) ADD_FAILURE() << header.error().ToString();
  return *header;
}

TEST(SparseLayout, IsASafetensorsFileOfIndexesAndBlocks) {
  const OutputLayout layout = Layout(SomeTensors());
  ASSERT_EQ(layout.files.size(), 1u);
  const OutputFile& file = layout.files[0];
  EXPECT_EQ(file.name, "sparse.safetensors");
  const SafetensorsHeader header = Parsed(file);
  EXPECT_EQ(header.metadata,
            (std::map<std::string, std::string>{{"format", "mergepipe.sparse/1"},
                                                {"base_fingerprint", kFingerprint.ToHex()},
                                                {"block_size", "10"}}));
  const std::vector<SafetensorsEntry> expected = {
      {"a.index", DType::kI64, {2}, 0, 16},       {"scale.index", DType::kI64, {1}, 16, 24},
      {"b.index", DType::kI64, {3}, 24, 48},      {"a.blocks", DType::kBF16, {11}, 48, 70},
      {"scale.blocks", DType::kF32, {1}, 70, 74}, {"b.blocks", DType::kF16, {30}, 74, 134}};
  EXPECT_EQ(header.entries, expected);
}

TEST(SparseLayout, TheIndexesFollowTheHeader) {
  const OutputFile file = Layout(SomeTensors()).files[0];
  const uint64_t begin = HeaderSize(file);
  EXPECT_EQ(begin % kDataAlignment, 0u);
  ASSERT_EQ(file.header.size(), begin + 48);
  std::vector<uint64_t> numbers;
  for (uint64_t at = begin; at < file.header.size(); at += 8) {
    uint64_t number = 0;
    for (size_t i = 8; i-- > 0;)
      number = number << 8 | static_cast<unsigned char>(file.header[at + i]);
    numbers.push_back(number);
  }
  EXPECT_EQ(numbers, (std::vector<uint64_t>{0, 2, 0, 1, 70, 99}));
}

TEST(SparseLayout, TensorsLieWhereTheirBlocksDo) {
  const OutputLayout layout = Layout(SomeTensors());
  const uint64_t begin = HeaderSize(layout.files[0]);
  ASSERT_EQ(layout.tensors.size(), 5u);
  EXPECT_EQ(layout.tensors[1].offset, begin + 48);
  EXPECT_EQ(layout.tensors[3].offset, begin + 70);
  EXPECT_EQ(layout.tensors[4].offset, begin + 74);
  EXPECT_EQ(layout.files[0].size, begin + 134);
  EXPECT_EQ(layout.tensors[4].name, "b");
  EXPECT_EQ(layout.tensors[4].shape, std::vector<uint64_t>{1000});
}

TEST(SparseLayout, NothingTouchedIsAnEmptyFile) {
  const OutputLayout layout = Layout({{"a", DType::kF32, {50}, {}}});
  EXPECT_TRUE(Parsed(layout.files[0]).entries.empty());
  EXPECT_EQ(layout.files[0].size, kDataAlignment);
  EXPECT_EQ(layout.files[0].header.size(), kDataAlignment);
}

TEST(SparseLayout, RefusesWhatIsTooLarge) {
  const uint64_t huge = uint64_t{1} << 62;
  const auto layout = ComputeSparseLayout(
      {{"a", DType::kF32, {huge - 1}, {0}}, {"b", DType::kF32, {huge - 1}, {0}}}, huge, {});
  EXPECT_TRUE(Says(Problems(layout), "more than 2^64 bytes"));
}

TEST(SparseOutput, IsRefusedAsAModel) {
  const TempDirectory directory;
  const OutputFile file = Layout({{"a", DType::kF32, {50}, {}}}).files[0];
  const std::string path = directory.Write("sparse.safetensors", file.header);
  directory.Write("config.json", "{}");
  for (const std::string& given :
       {directory.path(), path, directory.Write("x.safetensors", file.header)}) {
    const std::string problem = Problems(ReadModel(PosixFileSystem(), given));
    EXPECT_TRUE(Says(problem, given + ": it is a sparse output"));
    EXPECT_TRUE(Says(problem, "mergepipe materialize"));
  }
}

}  // namespace
}  // namespace mergepipe
