#include "mergepipe/format/safetensors.h"

#include <gtest/gtest.h>

#include "format/model_files.h"
#include "format/safetensors_file.h"

namespace mergepipe {
namespace {

Result<SafetensorsHeader> Parse(std::string_view json, uint64_t data_bytes = 0) {
  return ParseSafetensorsHeader(json, data_bytes, "m.safetensors");
}

// A header with the one tensor "a", whose entry is `fields`, over 8 bytes of data.
std::string Refused(const std::string& fields, uint64_t data_bytes = 8) {
  return Problems(Parse("{\"a\":{" + fields + "}}", data_bytes));
}

std::string Entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"("dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets;
}

TEST(SafetensorsParse, ReadsTensorsByOffsetAndMetadata) {
  const auto header = Parse(R"({"b":{"dtype":"F32","shape":[2,1],"data_offsets":[2,10]},)"
                            R"("__metadata__":{"format":"pt","k":"v"},)"
                            R"("a":{"data_offsets":[0,2],"shape":[1],"dtype":"BF16"}})",
                            10);
  ASSERT_TRUE(header) << header.error().ToString();
  EXPECT_EQ(header->metadata, (std::map<std::string, std::string>{{"format", "pt"}, {"k", "v"}}));
  ASSERT_EQ(header->entries.size(), 2u);
  EXPECT_EQ(header->entries[0], (SafetensorsEntry{"a", DType::kBF16, {1}, 0, 2}));
  EXPECT_EQ(header->entries[1], (SafetensorsEntry{"b", DType::kF32, {2, 1}, 2, 10}));
}

TEST(SafetensorsParse, AcceptsOddButLegalHeaders) {
  EXPECT_TRUE(Parse("{}"));
  EXPECT_TRUE(Parse("{}      "));
  EXPECT_TRUE(Parse(R"({"__metadata__":{}})"));
  EXPECT_TRUE(Parse(R"({"scalar":{"dtype":"F64","shape":[],"data_offsets":[0,8]}})", 8));
  EXPECT_TRUE(Parse(R"({"empty":{"dtype":"F32","shape":[3,0],"data_offsets":[0,0]}})"));
  EXPECT_TRUE(Parse(R"({"ä.重み":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}})", 1));
  EXPECT_TRUE(Parse(R"({"a\u00e4\"\n":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1));
}

TEST(SafetensorsParse, AcceptsEmptyTensorsAtTheStartInTheMiddleAndAtTheEnd) {
  const auto header = Parse(R"({"z":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},)"
                            R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                            R"("m":{"dtype":"F32","shape":[0],"data_offsets":[4,4]},)"
                            R"("b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]},)"
                            R"("e":{"dtype":"F32","shape":[0],"data_offsets":[8,8]}})",
                            8);
  ASSERT_TRUE(header) << header.error().ToString();
  EXPECT_EQ(header->entries.front().name, "z");
  EXPECT_EQ(header->entries.back().name, "e");
}

TEST(SafetensorsParse, RefusesWhatIsNotOneJsonObjectInUtf8) {
  EXPECT_TRUE(Says(Problems(Parse("")), "does not start with '{'"));
  EXPECT_TRUE(Says(Problems(Parse(" {}")), "does not start with '{'"));
  EXPECT_TRUE(Says(Problems(Parse("[]")), "does not start with '{'"));
  EXPECT_TRUE(Says(Problems(Parse("{}{}")), "invalid JSON at byte"));
  EXPECT_TRUE(Says(Problems(Parse("{} x")), "invalid JSON at byte"));
  EXPECT_TRUE(Says(Problems(Parse(std::string_view("{}\0\0", 4))), "NUL"));
  EXPECT_TRUE(Says(Problems(Parse("{\"__metadata__\":{\"a\":\"\xff\"}}")), "not valid UTF-8"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"__metadata__":{"a":"\ud800"}})")), "invalid JSON"));
  EXPECT_TRUE(
      Says(Problems(Parse(std::string(kMaxHeaderBytes + 1, ' '))), "longer than the limit"));
}

TEST(SafetensorsParse, RefusesDeepNesting) {
  std::string deep = R"({"__metadata__":{"a":)" + std::string(200'000, '[');
  EXPECT_TRUE(Says(Problems(Parse(deep)), "levels deep"));
}

TEST(SafetensorsParse, RefusesDuplicateKeysAtAnyLevel) {
  const std::string a = R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_TRUE(Says(Problems(Parse("{" + a + "," + a + "}")), "'a' appears twice"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"__metadata__":{"k":"1","k":"2"}})")), "'k' appears twice"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"__metadata__":{},"__metadata__":{}})")), "appears twice"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"__metadata__":{"k":"1","\u006b":"2"}})")), "appears twice"));
  EXPECT_TRUE(
      Says(Refused(R"("dtype":"F32",)" + Entry("F32", "[2]", "[0,8]")), "'dtype' appears twice"));
}

TEST(SafetensorsParse, RefusesBadMetadata) {
  EXPECT_TRUE(Says(Problems(Parse(R"({"__metadata__":[]})")), "__metadata__ is not an object"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"__metadata__":{"n":1}})")), "'n' is not a string"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"__metadata__":{"n":{"m":"x"}}})")), "'n' is not a string"));
}

TEST(SafetensorsParse, RefusesMissingUnknownAndMistypedFields) {
  EXPECT_TRUE(
      Says(Problems(Parse(R"({"a":1})")), "tensor 'a': its entry in the header is not an object"));
  EXPECT_TRUE(Says(Refused(R"("shape":[2],"data_offsets":[0,8])"), "no dtype"));
  EXPECT_TRUE(Says(Refused(R"("dtype":"F32","data_offsets":[0,8])"), "no shape"));
  EXPECT_TRUE(Says(Refused(R"("dtype":"F32","shape":[2])"), "no data_offsets"));
  EXPECT_TRUE(
      Says(Refused(Entry("F32", "[2]", "[0,8]") + R"(,"extra":0)"), "unknown field 'extra'"));
  EXPECT_TRUE(
      Says(Refused(R"("dtype":7,"shape":[2],"data_offsets":[0,8])"), "dtype is not a string"));
  EXPECT_TRUE(Says(Refused(Entry("F32", "2", "[0,8]")), "shape is not a list"));
  EXPECT_TRUE(Says(Refused(Entry("F32", R"({"0":2})", "[0,8]")), "shape is not a list"));
  EXPECT_TRUE(Says(Refused(Entry("F32", "[2]", "8")), "data_offsets is not a list"));
  EXPECT_TRUE(Says(Refused(Entry("F32", "[2]", "[8]")), "not a pair"));
  EXPECT_TRUE(Says(Refused(Entry("F32", "[2]", "[0,8,8]")), "more than two"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})")),
                   "empty name"));
}

TEST(SafetensorsParse, RefusesNumbersThatAreNotNonNegativeIntegers) {
  for (const char* number : {"-1", "-0", "2.0", "2e0", "\"2\"", "null", "[2]", "{\"a\":2}", "true",
                             "18446744073709551616"}) {
    const std::string text = number;
    EXPECT_TRUE(Says(Refused(Entry("F32", "[" + text + "]", "[0,8]")), "non-negative integers"))
        << text;
    EXPECT_TRUE(Says(Refused(Entry("F32", "[2]", "[0," + text + "]")), "non-negative integers"))
        << text;
  }
}

TEST(SafetensorsParse, RefusesTooManyDimensions) {
  std::string ones = "[1";
  for (uint64_t i = 1; i < kMaxRank; ++i) ones += ",1";
  EXPECT_TRUE(Parse("{\"a\":{" + Entry("F64", ones + "]", "[0,8]") + "}}", 8));
  EXPECT_TRUE(Says(Refused(Entry("F64", ones + ",1]", "[0,8]")), "more than 64 dimensions"));
}

TEST(SafetensorsParse, RefusesSizesThatDoNotFitOrOverflow) {
  EXPECT_TRUE(Says(Refused(Entry("F32", "[3]", "[0,8]")),
                   "F32 [3] takes 12 bytes, but its data_offsets span 8"));
  EXPECT_TRUE(Says(Refused(Entry("F32", "[2]", "[8,0]")), "end before they begin"));
  EXPECT_TRUE(
      Says(Refused(Entry("F64", "[2305843009213693952]", "[0,0]")), "more than 2^64 bytes"));
  EXPECT_TRUE(
      Says(Refused(Entry("U8", "[4294967296,4294967296]", "[0,0]")), "more than 2^64 bytes"));
  EXPECT_TRUE(
      Says(Refused(Entry("U8", "[4294967296,4294967296,0]", "[0,0]")), "more than 2^64 bytes"));
}

TEST(SafetensorsParse, RefusesHolesOverlapsAndAWrongEnd) {
  const auto two = [](const std::string& first, const std::string& second) {
    return "{\"a\":{" + Entry("F32", "[1]", first) + "},\"b\":{" + Entry("F32", "[1]", second) +
           "}}";
  };
  EXPECT_TRUE(Parse(two("[0,4]", "[4,8]"), 8));
  EXPECT_TRUE(Parse(two("[4,8]", "[0,4]"), 8));
  EXPECT_TRUE(Says(Problems(Parse(two("[0,4]", "[8,12]"), 12)), "tensor 'b': a hole of 4 bytes"));
  EXPECT_TRUE(Says(Problems(Parse(two("[4,8]", "[8,12]"), 12)), "tensor 'a': a hole of 4 bytes"));
  EXPECT_TRUE(
      Says(Problems(Parse(two("[0,4]", "[2,6]"), 6)), "tensor 'b': its data at offset 2 overlap"));
  EXPECT_TRUE(Says(Problems(Parse(two("[0,4]", "[0,4]"), 4)), "overlap"));
  EXPECT_TRUE(Says(Problems(Parse(two("[0,4]", "[4,8]"), 7)), "truncated"));
  EXPECT_TRUE(Says(Problems(Parse(two("[0,4]", "[4,8]"), 9)), "1 bytes follow"));
  EXPECT_TRUE(Says(Problems(Parse("{}", 1)), "1 bytes follow"));
}

TEST(SafetensorsParse, RefusesUnsupportedDTypesByName) {
  for (const char* dtype : {"F8_E4M3", "F8_E5M2", "F8_E8M0"}) {
    EXPECT_TRUE(
        Says(Refused(Entry(dtype, "[8]", "[0,8]")),
             std::string("m.safetensors: tensor 'a': dtype '") + dtype + "' is FP8: quantised"));
  }
  EXPECT_TRUE(Says(Refused(Entry("F4", "[16]", "[0,8]")), "FP4: quantised"));
  EXPECT_TRUE(Says(Refused(Entry("F6_E2M3", "[8]", "[0,6]"), 6), "FP6: quantised"));
  EXPECT_TRUE(Says(Refused(Entry("C64", "[1]", "[0,8]")), "dtype 'C64' is not supported"));
  EXPECT_TRUE(Says(Refused(Entry("X\\n9", "[1]", "[0,8]")), "dtype 'X\\n9' is not supported"));
}

TEST(SafetensorsParse, ReportsADTypeOfManyTensorsOnce) {
  const auto header = Parse("{\"a\":{" + Entry("F8_E4M3", "[1]", "[0,1]") + "},\"b\":{" +
                                Entry("F8_E4M3", "[1]", "[1,2]") + "}}",
                            2);
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().problems().size(), 1u);
  EXPECT_TRUE(Says(Problems(header), "(2 tensors have it)"));
}

TEST(SafetensorsParse, ListsProblemsOfSeveralTensorsButNotAll) {
  std::string json = "{";
  for (int i = 0; i < 30; ++i) json += (i ? ",\"t" : "\"t") + std::to_string(i) + "\":1";
  const auto header = Parse(json + "}");
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().problems().size(), 21u);
  EXPECT_TRUE(Says(Problems(header), "m.safetensors: 10 more problems"));
}

TEST(SafetensorsParse, CutsLongNamesInMessages) {
  const auto header = Parse("{\"" + std::string(100'000, 'x') + "\":1}");
  ASSERT_FALSE(header);
  EXPECT_LT(Problems(header).size(), 400u);
}

SafetensorsHeader OddHeader() {
  return {.metadata = {{"", ""}, {"format", "pt"}, {"quote\"\n", "\x01\\ ä"}},
          .entries = {{"empty", DType::kF64, {0, 7}, 0, 0},
                      {"scalar", DType::kF64, {}, 0, 8},
                      {"重み \"q\"", DType::kBF16, {2, 3}, 8, 20},
                      {"bools", DType::kBool, {5}, 20, 25}}};
}

TEST(SafetensorsSerialize, IsReadBackTheSame) {
  for (const SafetensorsHeader& header : {OddHeader(), SafetensorsHeader{}}) {
    const std::string bytes = SerializeSafetensorsHeader(header);
    EXPECT_EQ(bytes.size() % kDataAlignment, 0u);
    EXPECT_EQ(bytes.substr(0, 8), WithLength(bytes.substr(8)).substr(0, 8));
    const auto parsed = Parse(std::string_view(bytes).substr(8), header.entries.empty() ? 0 : 25);
    ASSERT_TRUE(parsed) << parsed.error().ToString();
    EXPECT_EQ(*parsed, header);
  }
}

TEST(SafetensorsSerialize, AlignsEveryHeaderLength) {
  for (size_t length = 0; length < 2 * kDataAlignment; ++length) {
    const std::string bytes = SerializeSafetensorsHeader({{{"k", std::string(length, 'v')}}, {}});
    ASSERT_EQ(bytes.size() % kDataAlignment, 0u) << length;
    ASSERT_EQ(bytes.substr(0, 8), WithLength(bytes.substr(8)).substr(0, 8)) << length;
  }
}

TEST(SafetensorsParse, RefusesAHeaderCutAtAnyLength) {
  const std::string padded = SerializeSafetensorsHeader(OddHeader()).substr(8);
  const std::string json = padded.substr(0, padded.find_last_not_of(' ') + 1);
  ASSERT_TRUE(Parse(json, 25));
  for (size_t length = 0; length < json.size(); ++length) {
    EXPECT_FALSE(Parse(json.substr(0, length), 25)) << length;
  }
}

TEST(SafetensorsParse, SurvivesAnyFlippedByte) {
  const std::string padded = SerializeSafetensorsHeader(OddHeader()).substr(8);
  const std::string json = padded.substr(0, padded.find_last_not_of(' ') + 2);
  for (size_t i = 0; i < json.size(); ++i) {
    for (const int mask : {0x01, 0x02, 0x20, 0x80, 0xff}) {
      std::string flipped = json;
      flipped[i] = static_cast<char>(flipped[i] ^ mask);
      const auto header = Parse(flipped, 25);
      // What passes must be a sound header, the same after another round.
      if (!header) continue;
      const auto again = Parse(SerializeSafetensorsHeader(*header).substr(8), 25);
      ASSERT_TRUE(again) << again.error().ToString();
      EXPECT_EQ(*again, *header);
    }
  }
}

class SafetensorsFileTest : public ::testing::Test {
 protected:
  Result<SafetensorsFile> Read(std::string_view bytes) {
    return ReadSafetensorsFile(PosixFileSystem(), directory_.Write("m.safetensors", bytes));
  }

  TempDirectory directory_;
};

TEST_F(SafetensorsFileTest, ReadsAFile) {
  const std::string bytes = SafetensorsBytes({"a", "b"});
  const auto file = Read(bytes);
  ASSERT_TRUE(file) << file.error().ToString();
  EXPECT_EQ(file->data_begin, kDataAlignment);
  EXPECT_EQ(file->info.size, bytes.size());
  EXPECT_EQ(file->header_hash, HashText(std::string_view(bytes).substr(0, kDataAlignment)));
  EXPECT_EQ(file->header.entries.size(), 2u);
}

TEST_F(SafetensorsFileTest, AcceptsAFileWithoutTensors) { EXPECT_TRUE(Read(WithLength("{}"))); }

TEST_F(SafetensorsFileTest, RefusesAFileCutAtAnyLength) {
  const std::string bytes =
      WithLength(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})") + "data";
  ASSERT_TRUE(Read(bytes));
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_TRUE(Says(Problems(Read(bytes.substr(0, length))), "m.safetensors: ")) << length;
  }
  EXPECT_TRUE(Says(Problems(Read("")), "0 bytes is too short"));
  EXPECT_TRUE(Says(Problems(Read(bytes.substr(0, 20))), "longer than the file (20 bytes)"));
  EXPECT_TRUE(Says(Problems(Read(bytes + "x")), "1 bytes follow"));
}

TEST_F(SafetensorsFileTest, RefusesAHeaderOverTheLimitWithoutReadingIt) {
  const std::string path =
      directory_.Write("m.safetensors", std::string("\x01\xe1\xf5\x05\0\0\0\0", 8));
  std::filesystem::resize_file(path, 200'000'000);
  EXPECT_TRUE(Says(Problems(ReadSafetensorsFile(PosixFileSystem(), path)),
                   "header of 100000001 bytes is longer than the limit"));
}

TEST_F(SafetensorsFileTest, RefusesAnAbsurdHeaderLength) {
  EXPECT_TRUE(Says(Problems(Read(std::string(8, '\xff') + "{}")), "longer than the file"));
}

TEST_F(SafetensorsFileTest, NamesAGitLfsPointer) {
  EXPECT_TRUE(Says(Problems(Read("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")),
                   "git lfs pull"));
}

}  // namespace
}  // namespace mergepipe
