#include "run/demo_shapes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

namespace mergepipe {
namespace {

// The named sizes have the dimensions of published models: TinyLlama-1.1B, Llama-3-8B, Llama-3-70B,
// and Qwen3-0.6B, -1.7B, -4B, -8B. tiny is for tests; in qwen3 its heads are wider than hidden, as
// 0.6b's are.
constexpr std::array<DemoShape, 11> kShapes = {{
    // shape, size, hidden, layers, heads, kv, dim, intermediate, vocab, tied, theta, epsilon,
    // positions
    {"llama", "tiny", 32, 4, 4, 2, 8, 64, 320, false, 1e4, 1e-5, 2048},
    {"llama", "small", 256, 12, 8, 4, 32, 1024, 4096, false, 1e4, 1e-5, 2048},
    {"llama", "1b", 2048, 22, 32, 4, 64, 5632, 32000, false, 1e4, 1e-5, 2048},
    {"llama", "8b", 4096, 32, 32, 8, 128, 14336, 128256, false, 5e5, 1e-5, 8192},
    {"llama", "70b", 8192, 80, 64, 8, 128, 28672, 128256, false, 5e5, 1e-5, 8192},
    {"qwen3", "tiny", 32, 4, 4, 2, 16, 96, 320, true, 1e6, 1e-6, 2048},
    {"qwen3", "small", 256, 12, 8, 4, 64, 768, 8192, true, 1e6, 1e-6, 2048},
    {"qwen3", "0.6b", 1024, 28, 16, 8, 128, 3072, 151936, true, 1e6, 1e-6, 40960},
    {"qwen3", "1.7b", 2048, 28, 16, 8, 128, 6144, 151936, true, 1e6, 1e-6, 40960},
    {"qwen3", "4b", 2560, 36, 32, 8, 128, 9728, 151936, true, 1e6, 1e-6, 40960},
    {"qwen3", "8b", 4096, 36, 32, 8, 128, 12288, 151936, false, 1e6, 1e-6, 40960},
}};

// Adds the tensors of one decoder layer.
void AddLayer(const DemoShape& shape, uint32_t layer, std::vector<DemoTensor>& tensors) {
  const double depth = (layer + 0.5) / shape.layers;
  const auto add = [&](std::string_view part, std::vector<uint64_t> dims) {
    const auto kind = dims.size() == 1 ? DemoTensorKind::kNorm : DemoTensorKind::kMatrix;
    tensors.push_back({fmt::format("model.layers.{}.{}.weight", layer, part), std::move(dims), kind,
                       layer, depth});
  };
  const uint64_t query_rows = shape.heads * shape.head_dim;
  const uint64_t kv_rows = shape.kv_heads * shape.head_dim;

  add("input_layernorm", {shape.hidden});
  add("self_attn.q_proj", {query_rows, shape.hidden});
  add("self_attn.k_proj", {kv_rows, shape.hidden});
  add("self_attn.v_proj", {kv_rows, shape.hidden});
  add("self_attn.o_proj", {shape.hidden, query_rows});
  if (shape.shape == "qwen3") {
    add("self_attn.q_norm", {shape.head_dim});
    add("self_attn.k_norm", {shape.head_dim});
  }
  add("post_attention_layernorm", {shape.hidden});
  add("mlp.gate_proj", {shape.intermediate, shape.hidden});
  add("mlp.up_proj", {shape.intermediate, shape.hidden});
  add("mlp.down_proj", {shape.hidden, shape.intermediate});
}

}  // namespace

std::span<const DemoShape> DemoShapes() { return kShapes; }

std::optional<DemoShape> FindDemoShape(std::string_view shape, std::string_view size) {
  const auto* row = std::find_if(kShapes.begin(), kShapes.end(), [&](const DemoShape& candidate) {
    return candidate.shape == shape && candidate.size == size;
  });
  if (row == kShapes.end()) return std::nullopt;
  return *row;
}

uint64_t DemoTensor::elements() const {
  return std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<>());
}

std::vector<DemoTensor> DemoTensors(const DemoShape& shape) {
  std::vector<DemoTensor> tensors;
  tensors.push_back({"model.embed_tokens.weight",
                     {shape.vocab, shape.hidden},
                     DemoTensorKind::kEmbedding,
                     std::nullopt,
                     0.0});
  for (uint32_t layer = 0; layer < shape.layers; ++layer) AddLayer(shape, layer, tensors);
  tensors.push_back(
      {"model.norm.weight", {shape.hidden}, DemoTensorKind::kNorm, std::nullopt, 1.0});
  if (!shape.tied) {
    tensors.push_back({"lm_head.weight",
                       {shape.vocab, shape.hidden},
                       DemoTensorKind::kMatrix,
                       std::nullopt,
                       1.0});
  }
  return tensors;
}

}  // namespace mergepipe
