#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mergepipe/base/dtype.h"
#include "mergepipe/base/error.h"
#include "mergepipe/io/file.h"
#include "run/demo_shapes.h"
#include "run/demo_texts.h"

namespace mergepipe {

/// The tensors cut, in their order, into `count` runs of near-equal bytes, none empty, with the
/// file names that transformers gives them. `count` is from 1 to tensors.size().
std::vector<DemoShard> SplitIntoShards(const std::vector<DemoTensor>& tensors, uint32_t count);

/// A weight file up to its data: length, safetensors header, padding.
std::string DemoWeightHeader(const DemoShard& shard, DType dtype);
uint64_t DemoDataBytes(const DemoShard& shard, DType dtype);

/// Which values to write: see DemoValues.
struct DemoWeights {
  uint32_t model = 0;
  uint32_t layers = 0;
  DType dtype = DType::kBF16;
  uint64_t seed = 0;
};

/// Makes the weight file `shard.file` in `directory`, and syncs it.
Status WriteDemoWeights(FileSystem& files, const std::string& directory, const DemoShard& shard,
                        const DemoWeights& weights);

}  // namespace mergepipe
