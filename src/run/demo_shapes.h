#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mergepipe {

/// Architecture and dimensions of a demo model: the fields of config.json that decide tensors, and
/// a few that go with them.
struct DemoShape {
  std::string_view shape;
  std::string_view size;
  uint64_t hidden;
  uint32_t layers;
  uint64_t heads;
  uint64_t kv_heads;
  uint64_t head_dim;
  uint64_t intermediate;
  uint64_t vocab;
  bool tied;  ///< the embedding is the head too: no lm_head.weight
  double rope_theta;
  double norm_epsilon;
  uint64_t max_positions;
};

/// The table of sizes.
std::span<const DemoShape> DemoShapes();
std::optional<DemoShape> FindDemoShape(std::string_view shape, std::string_view size);

enum class DemoTensorKind { kEmbedding, kNorm, kMatrix };

struct DemoTensor {
  std::string name;
  std::vector<uint64_t> shape;
  DemoTensorKind kind = DemoTensorKind::kMatrix;
  std::optional<uint32_t> layer;  ///< nothing for embedding, last norm and head
  double depth = 0;               ///< place in the model, 0 (embedding) to 1 (head)

  uint64_t elements() const;
  /// A norm's weights are a row each.
  uint64_t rows() const { return shape[0]; }
};

/// The tensors of a shape, named as transformers names them, in the order in which they are stored.
std::vector<DemoTensor> DemoTensors(const DemoShape& shape);

}  // namespace mergepipe
