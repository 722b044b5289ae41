#pragma once

#include <string>
#include <vector>

#include "plan/family.h"

namespace mergepipe::test {

/// The dimensions of Llama 3.1 that decide its tensors.
struct LlamaShape {
  uint64_t hidden;
  uint64_t intermediate;
  int layers;
};
inline constexpr LlamaShape kLlama70B = {8192, 28'672, 80};
inline constexpr LlamaShape kLlama405B = {16'384, 53'248, 126};

/// All its tensors, in bf16.
inline std::vector<TensorSpec> LlamaTensors(const LlamaShape& shape) {
  constexpr uint64_t kKeyValues = uint64_t{8} * 128;
  constexpr uint64_t kVocabulary = 128'256;
  std::vector<TensorSpec> tensors;
  const auto add = [&](const std::string& name, std::vector<uint64_t> dimensions) {
    tensors.push_back({name + ".weight", DType::kBF16, std::move(dimensions)});
  };
  add("model.embed_tokens", {kVocabulary, shape.hidden});
  for (int layer = 0; layer < shape.layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    add(prefix + "input_layernorm", {shape.hidden});
    add(prefix + "mlp.down_proj", {shape.hidden, shape.intermediate});
    add(prefix + "mlp.gate_proj", {shape.intermediate, shape.hidden});
    add(prefix + "mlp.up_proj", {shape.intermediate, shape.hidden});
    add(prefix + "post_attention_layernorm", {shape.hidden});
    add(prefix + "self_attn.k_proj", {kKeyValues, shape.hidden});
    add(prefix + "self_attn.o_proj", {shape.hidden, shape.hidden});
    add(prefix + "self_attn.q_proj", {shape.hidden, shape.hidden});
    add(prefix + "self_attn.v_proj", {kKeyValues, shape.hidden});
  }
  add("model.norm", {shape.hidden});
  add("lm_head", {kVocabulary, shape.hidden});
  return tensors;
}

}  // namespace mergepipe::test
