#include "run/demo_texts.h"

#include <array>
#include <nlohmann/json.hpp>

namespace mergepipe {
namespace {

using Json = nlohmann::ordered_json;

// The 256 byte tokens have the ids 0 to 255; the special ones follow.
struct SpecialToken {
  const char* role;
  const char* text;
  int id;
};
constexpr SpecialToken kBegin = {"bos_token", "<|begin|>", 256};
constexpr SpecialToken kEnd = {"eos_token", "<|end|>", 257};
constexpr SpecialToken kPad = {"pad_token", "<|pad|>", 258};
constexpr std::array kSpecialTokens = {kBegin, kEnd, kPad};

DemoText JsonFile(std::string name, const Json& json) {
  return {std::move(name), json.dump(2) + "\n"};
}

std::string Utf8(unsigned code) {  // below 0x800
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

// The printable character that stands for each byte in byte-level BPE (GPT-2's bytes_to_unicode):
// printable Latin-1 bytes are themselves, the others U+0100 and on.
std::array<std::string, 256> ByteSymbols() {
  std::array<std::string, 256> symbols;
  unsigned next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    symbols[byte] = Utf8(printable ? byte : next++);
  }
  return symbols;
}

Json Config(const DemoShape& shape, DType dtype) {
  const bool qwen3 = shape.shape == "qwen3";
  Json config = {
      {"architectures", {qwen3 ? "Qwen3ForCausalLM" : "LlamaForCausalLM"}},
      {"attention_bias", false},
      {"attention_dropout", 0.0},
      {"bos_token_id", kBegin.id},
      {"eos_token_id", kEnd.id},
      {"pad_token_id", kPad.id},
      {"head_dim", shape.head_dim},
      {"hidden_act", "silu"},
      {"hidden_size", shape.hidden},
      {"initializer_range", 0.02},
      {"intermediate_size", shape.intermediate},
      {"max_position_embeddings", shape.max_positions},
      {"model_type", shape.shape},
      {"num_attention_heads", shape.heads},
      {"num_hidden_layers", shape.layers},
      {"num_key_value_heads", shape.kv_heads},
      {"rms_norm_eps", shape.norm_epsilon},
      {"rope_scaling", nullptr},
      {"rope_theta", shape.rope_theta},
      {"tie_word_embeddings", shape.tied},
      {"torch_dtype", TorchName(dtype)},
      {"use_cache", true},
      {"vocab_size", shape.vocab},
  };
  if (qwen3) {
    config["max_window_layers"] = shape.layers;
    config["sliding_window"] = nullptr;
    config["use_sliding_window"] = false;
  } else {
    config["mlp_bias"] = false;
    config["pretraining_tp"] = 1;
  }
  return config;
}

Json GenerationConfig() {
  return {{"bos_token_id", kBegin.id}, {"eos_token_id", kEnd.id}, {"pad_token_id", kPad.id}};
}

Json AddedToken(const SpecialToken& token) {
  return {{"content", token.text}, {"single_word", false}, {"lstrip", false},
          {"rstrip", false},       {"normalized", false},  {"special", true}};
}

Json Tokenizer() {
  Json added = Json::array();
  for (const SpecialToken& token : kSpecialTokens) {
    Json entry = AddedToken(token);
    entry["id"] = token.id;
    added.push_back(std::move(entry));
  }
  Json vocabulary = Json::object();
  int id = 0;
  for (const std::string& symbol : ByteSymbols()) vocabulary[symbol] = id++;
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", false},
                           {"use_regex", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", std::move(vocabulary)},
            {"merges", Json::array()}}}};
}

Json SpecialTokensMap() {
  Json map = Json::object();
  for (const SpecialToken& token : kSpecialTokens) map[token.role] = token.text;
  return map;
}

Json TokenizerConfig(const DemoShape& shape) {
  Json added = Json::object();
  for (const SpecialToken& token : kSpecialTokens) {
    added[std::to_string(token.id)] = AddedToken(token);
  }
  Json config = SpecialTokensMap();
  config["added_tokens_decoder"] = std::move(added);
  config["clean_up_tokenization_spaces"] = false;
  config["model_max_length"] = shape.max_positions;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  return config;
}

}  // namespace

std::vector<DemoText> DemoSideFiles(const DemoShape& shape, DType dtype) {
  return {JsonFile("config.json", Config(shape, dtype)),
          JsonFile("generation_config.json", GenerationConfig()),
          JsonFile("special_tokens_map.json", SpecialTokensMap()),
          JsonFile("tokenizer.json", Tokenizer()),
          JsonFile("tokenizer_config.json", TokenizerConfig(shape))};
}

DemoText DemoIndex(const std::vector<DemoShard>& shards, DType dtype) {
  uint64_t elements = 0;
  Json map = Json::object();
  for (const DemoShard& shard : shards) {
    for (const DemoTensor& tensor : shard.tensors) {
      elements += tensor.elements();
      map[tensor.name] = shard.file;
    }
  }
  return JsonFile("model.safetensors.index.json",
                  {{"metadata", {{"total_size", elements * DTypeSize(dtype)}}},
                   {"weight_map", std::move(map)}});
}

}  // namespace mergepipe
