#pragma once

#include <string>
#include <vector>

#include "mergepipe/base/dtype.h"
#include "run/demo_shapes.h"

namespace mergepipe {

struct DemoText {
  std::string name;  ///< file name in the model's directory
  std::string text;
};

/// config.json, generation_config.json, and a byte-level BPE tokenizer without merges: one token a
/// byte, and three special ones. The same for all models of a family.
std::vector<DemoText> DemoSideFiles(const DemoShape& shape, DType dtype);

/// A weight file's name and the tensors in it.
struct DemoShard {
  std::string file;
  std::vector<DemoTensor> tensors;
};
/// model.safetensors.index.json.
DemoText DemoIndex(const std::vector<DemoShard>& shards, DType dtype);

}  // namespace mergepipe
