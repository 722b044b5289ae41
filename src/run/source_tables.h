#pragma once

#include <string_view>
#include <unordered_map>
#include <vector>

#include "mergepipe/exec/slice.h"
#include "mergepipe/format/model.h"

namespace mergepipe {

/// A model's weight files, and one of its tensors, as a rank needs them.
std::vector<SourceFile> SourceFilesOf(const ModelLayout& layout);
SourceTensor SourceOf(const TensorInfo& tensor);

using TensorsByName = std::unordered_map<std::string_view, const TensorInfo*>;
TensorsByName IndexTensors(const ModelLayout& layout);

}  // namespace mergepipe
