#include <gtest/gtest.h>

#include "format/model_files.h"
#include "format/safetensors_index.h"

namespace mergepipe {
namespace {

Result<SafetensorsIndex> Parse(std::string_view json) {
  return ParseSafetensorsIndex(json, "x.index.json");
}

TEST(SafetensorsIndex, ReadsFilesSortedAndOnce) {
  const auto index =
      Parse(R"({"metadata":{"total_size":1.5},"weight_map":{"c":"z","b":"a.st","a":"z"}})");
  ASSERT_TRUE(index) << index.error().ToString();
  EXPECT_EQ(index->files, (std::vector<std::string>{"a.st", "z"}));
  EXPECT_EQ(index->tensors, (std::map<std::string, uint32_t>{{"a", 1}, {"b", 0}, {"c", 1}}));
}

TEST(SafetensorsIndex, RefusesWhatIsNoIndex) {
  EXPECT_TRUE(Says(Problems(Parse("")), "x.index.json: invalid JSON"));
  EXPECT_TRUE(Says(Problems(Parse("[]")), "not a JSON object"));
  EXPECT_TRUE(Says(Problems(Parse("{}")), "no weight_map"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"weight_map":[]})")), "no weight_map"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"weight_map":{}})")), "weight_map is empty"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"weight_map":{"a":1}})")),
                   "tensor 'a': its file in weight_map is not"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"weight_map":{"a":{"b":"c"}}})")), "is not a string"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"weight_map":{"a":"f","a":"g"}})")), "'a' appears twice"));
  EXPECT_TRUE(
      Says(Problems(Parse(R"({"weight_map":{"a":"f"},"weight_map":{"b":"f"}})")), "appears twice"));
}

TEST(SafetensorsIndex, RefusesPaths) {
  for (const char* name : {"", ".", "..", "a/b", "/etc/passwd", "../x.safetensors", "a\\\\b",
                           "a\\u0000b", "a\\nb", "a\\u007f"}) {
    EXPECT_TRUE(Says(Problems(Parse(std::string(R"({"weight_map":{"t":")") + name + "\"}}")),
                     "not a plain file name"))
        << name;
  }
  EXPECT_TRUE(Parse(R"({"weight_map":{"t":"..a"}})"));
}

}  // namespace
}  // namespace mergepipe
