#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mergepipe/format/model.h"

namespace mergepipe {

/// A weight file that is to be written.
struct OutputFile {
  std::string name;  ///< relative to the output directory
  /// The bytes that are known before the merge: the header, a multiple of kDataAlignment long, and
  /// a sparse output's indexes.
  std::string header;
  uint64_t size = 0;  ///< header and data

  uint64_t data_begin() const { return header.size(); }
  bool operator==(const OutputFile&) const = default;
};

/// Where every byte of a merged checkpoint goes. A pure function of the base's headers and the
/// dtype.
struct OutputLayout {
  std::vector<OutputFile> files;  ///< one for each file of the base, in its order
  std::vector<TensorInfo>
      tensors;  ///< one for each tensor of the base, in its order; `file` indexes `files`
  std::optional<std::string> index_name;  ///< the base's: to be written with IndexText

  /// Bytes of all tensors, headers apart.
  uint64_t WeightBytes() const;
  bool operator==(const OutputLayout&) const = default;
};

/// The output that has the base's files, names, metadata and order of tensors (a base that is one
/// file becomes "model.safetensors"). Float tensors take `float_dtype`, if given; all others keep
/// theirs. kBadInput if a size overflows or a header becomes too long; kInternal if `float_dtype`
/// is no float.
Result<OutputLayout> ComputeOutputLayout(const ModelLayout& base, std::optional<DType> float_dtype);

/// The text of the output's index: `metadata` of the base's index (`base_index`, its text) with
/// `total_size` set to the bytes of all tensors, and the weight map. `subject` is the path of the
/// base's index.
Result<std::string> IndexText(const OutputLayout& output, std::string_view base_index,
                              const std::string& subject);

/// The text of config.json with its dtype set: `torch_dtype` at the top (added if absent), and
/// wherever the top or a part ("text_config", "vision_config", ...) names one as a string under
/// `torch_dtype` or `dtype`. All other bytes stay as they are. `quantization_config` is left alone.
/// `dtype` is a float type; `subject` is the path.
Result<std::string> EditConfig(std::string_view config, DType dtype, const std::string& subject);

}  // namespace mergepipe
