#include "format/model_config.h"

#include <gtest/gtest.h>

#include "format/model_files.h"

namespace mergepipe {
namespace {

Result<ModelConfig> Parse(std::string_view json) { return ParseModelConfig(json, "config.json"); }

TEST(ModelConfig, ReadsTiedEmbeddings) {
  EXPECT_EQ(*Parse("{}"), (ModelConfig{true, false, ""}));
  EXPECT_TRUE(Parse(R"({"tie_word_embeddings":true})")->tie_word_embeddings);
  EXPECT_FALSE(Parse(R"({"tie_word_embeddings":false})")->tie_word_embeddings);
  EXPECT_FALSE(Parse(R"({"tie_word_embeddings":null})")->tie_word_embeddings);
  EXPECT_TRUE(Parse(R"({"text_config":{"tie_word_embeddings":true}})")->tie_word_embeddings);
  EXPECT_FALSE(Parse(R"({"vision_config":{"tie_word_embeddings":true}})")->tie_word_embeddings);
  EXPECT_FALSE(Parse(R"({"a":{"text_config":{"tie_word_embeddings":true}}})")->tie_word_embeddings);
}

TEST(ModelConfig, ReadsQuantization) {
  EXPECT_EQ(Parse(R"({"quantization_config":{"a":{"quant_method":"x"},"quant_method":"fp8"}})")
                ->quantization,
            "fp8");
  EXPECT_EQ(
      Parse(R"({"text_config":{"quantization_config":{"quant_method":"awq"}}})")->quantization,
      "awq");
  EXPECT_EQ(Parse(R"({"quantization_config":{"bits":4}})")->quantization, "unnamed");
  EXPECT_EQ(Parse(R"({"quantization_config":null})")->quantization, "");
}

TEST(ModelConfig, AcceptsWhatPythonWrites) {
  EXPECT_TRUE(
      Parse(R"({"time_step_limit":[0.0, Infinity],"a":NaN,"b":[-Infinity],"c":"x\": NaN"})"));
}

TEST(ModelConfig, RefusesDamage) {
  EXPECT_TRUE(Says(Problems(Parse("")), "config.json: invalid JSON"));
  EXPECT_TRUE(Says(Problems(Parse("{\"a\":")), "config.json: invalid JSON"));
  EXPECT_TRUE(Says(Problems(Parse("{\"a\":1NaN}")), "config.json: invalid JSON"));
  EXPECT_TRUE(Says(Problems(Parse("[]")), "not a JSON object"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"a":1,"a":2})")), "appears twice"));
  EXPECT_TRUE(Says(Problems(Parse(R"({"tie_word_embeddings":"yes"})")), "neither true nor false"));
}

}  // namespace
}  // namespace mergepipe
