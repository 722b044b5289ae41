#include <gtest/gtest.h>

#include "format/model_files.h"
#include "mergepipe/format/model.h"

namespace mergepipe {
namespace {

TEST(FingerprintSamples, TakesSmallDataWhole) {
  EXPECT_TRUE(FingerprintSamples(100, 100).empty());
  EXPECT_TRUE(FingerprintSamples(100, 50).empty());
  EXPECT_EQ(FingerprintSamples(100, 101), (std::vector<FileRange>{{100, 1}}));
  EXPECT_EQ(FingerprintSamples(100, 100 + 65536), (std::vector<FileRange>{{100, 65536}}));
}

TEST(FingerprintSamples, SpreadsSixteenThatDoNotOverlapFromEndToEnd) {
  for (const uint64_t data : {uint64_t{65537}, uint64_t{65551}, uint64_t{1'000'003},
                              uint64_t{1} << 40, UINT64_MAX - 5000}) {
    const auto samples = FingerprintSamples(4096, 4096 + data);
    ASSERT_EQ(samples.size(), 16u) << data;
    for (uint64_t i = 0; i < 16; ++i) {
      const auto exact =
          static_cast<uint64_t>(static_cast<unsigned __int128>(i) * (data - 4096) / 15);
      EXPECT_EQ(samples[i], (FileRange{4096 + exact, 4096})) << data;
      if (i == 0) continue;
      EXPECT_GE(samples[i].offset, samples[i - 1].offset + 4096) << data;
    }
    EXPECT_EQ(samples.back().offset + 4096, 4096 + data);
  }
}

class FingerprintTest : public ::testing::Test {
 protected:
  static Hash128 Take(const std::string& path) {
    const auto layout = ReadModel(PosixFileSystem(), path);
    if (!layout) ADD_FAILURE() << layout.error().ToString();
    const auto hash = TakeFingerprint(PosixFileSystem(), *layout);
    if (!hash) ADD_FAILURE() << hash.error().ToString();
    return *hash;
  }

  TempDirectory directory_;
};

TEST_F(FingerprintTest, ChangesWithEachSampledByteOnly) {
  const std::string bytes = SafetensorsBytes({"a"}, 50'000);  // 200,000 bytes of data
  const std::string path = directory_.Write("model.safetensors", bytes);
  const Hash128 before = Take(path);
  EXPECT_EQ(Take(path), before);
  const auto flip = [&](uint64_t at) {
    std::string flipped = bytes;
    flipped[at] = static_cast<char>(flipped[at] ^ 1);
    directory_.Write("model.safetensors", flipped);
    return Take(path);
  };
  const auto samples = FingerprintSamples(kDataAlignment, bytes.size());
  for (const FileRange& sample : samples) {
    EXPECT_NE(flip(sample.offset), before);
    EXPECT_NE(flip(sample.offset + sample.size - 1), before);
  }
  EXPECT_EQ(flip(samples[0].offset + 4096), before);  // between two samples
}

TEST_F(FingerprintTest, ChangesWithNameSizeAndHeader) {
  const Hash128 before = Take(directory_.Write("a.safetensors", SafetensorsBytes({"a"})));
  EXPECT_EQ(Take(directory_.Write("other/a.safetensors", SafetensorsBytes({"a"}))), before);
  EXPECT_NE(Take(directory_.Write("b.safetensors", SafetensorsBytes({"a"}))), before);
  EXPECT_NE(Take(directory_.Write("a.safetensors", SafetensorsBytes({"b"}))), before);
  EXPECT_NE(Take(directory_.Write("a.safetensors", SafetensorsBytes({"a"}, 3))), before);
}

TEST_F(FingerprintTest, IsThatOfItsDefinition) {
  const std::string bytes = SafetensorsBytes({"a"});
  const std::string path = directory_.Write("a.safetensors", bytes);
  Hasher hasher;
  hasher.Update(uint64_t{13});
  hasher.Update(std::string_view("a.safetensors"));
  hasher.Update(uint64_t{bytes.size()});
  hasher.Update(HashText(bytes.substr(0, kDataAlignment)));
  hasher.Update(std::string_view(bytes).substr(kDataAlignment));
  EXPECT_EQ(Take(path), hasher.Finish());
}

TEST_F(FingerprintTest, CountsItsBytes) {
  directory_.Write("model.safetensors", SafetensorsBytes({"a", "b"}, 50'000));
  const auto layout = ReadModel(PosixFileSystem(), directory_.path());
  ASSERT_TRUE(layout);
  EXPECT_EQ(FingerprintBytes(*layout), 16u * 4096);
}

TEST_F(FingerprintTest, RefusesAFileThatChangedItsSize) {
  const std::string path = directory_.Write("model.safetensors", SafetensorsBytes({"a"}));
  const auto layout = ReadModel(PosixFileSystem(), path);
  ASSERT_TRUE(layout);
  directory_.Write("model.safetensors", SafetensorsBytes({"a"}, 3));
  EXPECT_TRUE(Says(Problems(TakeFingerprint(PosixFileSystem(), *layout)), "its size changed"));
}

}  // namespace
}  // namespace mergepipe
