#include <gtest/gtest.h>

#include "format/model_files.h"
#include "mergepipe/format/output_layout.h"

namespace mergepipe {
namespace {

std::string Edited(std::string_view text, DType dtype = DType::kBF16) {
  const auto result = EditConfig(text, dtype, "config.json");
  return result ? *result : result.error().ToString();
}

TEST(EditConfig, ChangesNothingButTheDType) {
  EXPECT_EQ(
      Edited("{\n  \"z\": 1e-05, \"torch_dtype\" :\"float16\" ,\n\"a\": "
             "[123456789012345678901234567890, "
             "Infinity]}\n"),
      "{\n  \"z\": 1e-05, \"torch_dtype\" :\"bfloat16\" ,\n\"a\": [123456789012345678901234567890, "
      "Infinity]}\n");
  EXPECT_EQ(Edited(R"({"torch_dtype":null})", DType::kF32), R"({"torch_dtype":"float32"})");
  EXPECT_EQ(Edited(R"({"a":{"torch_dtype":"x"},"torch_dtype":"y","b":"}\"{"})"),
            R"({"a":{"torch_dtype":"x"},"torch_dtype":"bfloat16","b":"}\"{"})");
}

TEST(EditConfig, KnowsAnEscapedKey) {
  EXPECT_EQ(Edited(R"({"torch\u005fdtype":"float16"})"), R"({"torch\u005fdtype":"bfloat16"})");
}

TEST(EditConfig, AddsTheDTypeInTheStyleOfTheText) {
  EXPECT_EQ(Edited("{}"), R"({"torch_dtype": "bfloat16"})");
  EXPECT_EQ(Edited(" { } "), R"( {"torch_dtype": "bfloat16" } )");
  EXPECT_EQ(Edited("{\n  \"a\": [1, {\"b\": 2}]\n}\n"),
            "{\n  \"a\": [1, {\"b\": 2}],\n  \"torch_dtype\": \"bfloat16\"\n}\n");
}

TEST(EditConfig, FollowsWithDTypeAndParts) {
  EXPECT_EQ(Edited(R"({"dtype":"float16","torch_dtype":"float16"})"),
            R"({"dtype":"bfloat16","torch_dtype":"bfloat16"})");
  EXPECT_EQ(
      Edited(
          R"({"text_config":{"torch_dtype":"float16"},"vision_config":{"x":[],"dtype":"float32"},)"
          R"("audio_config":{"torch_dtype":null},"torch_dtype":"float16"})"),
      R"({"text_config":{"torch_dtype":"bfloat16"},"vision_config":{"x":[],"dtype":"bfloat16"},)"
      R"("audio_config":{"torch_dtype":null},"torch_dtype":"bfloat16"})");
  EXPECT_EQ(Edited(R"({"quantization_config":{"dtype":"int8"},"torch_dtype":"float16"})"),
            R"({"quantization_config":{"dtype":"int8"},"torch_dtype":"bfloat16"})");
}

TEST(EditConfig, RefusesDamage) {
  for (const char* text : {"", "[]", "{", "\"a\"", "{\"a\":1,\"a\":2}", "\xef\xbb\xbf{}"}) {
    EXPECT_TRUE(Says(Problems(EditConfig(text, DType::kF16, "config.json")), "config.json: "))
        << text;
  }
}

}  // namespace
}  // namespace mergepipe
