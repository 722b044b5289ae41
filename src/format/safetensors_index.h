#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "mergepipe/base/error.h"

/// \file
/// `model.safetensors.index.json` of a sharded checkpoint:
///
///     {"metadata": {"total_size": N, ...}, "weight_map": {"<tensor>": "<file>", ...}}
///
/// At most 100,000,000 bytes of UTF-8 JSON; no key twice. `weight_map` is an object of strings,
/// each a plain file name of the same directory: not empty, not "." or "..", without '/', '\' or
/// control characters, not of a JSON file. `metadata` and unknown members are not read:
/// `total_size` is often wrong, and decides nothing.
namespace mergepipe {

inline constexpr uint64_t kMaxIndexBytes = 100'000'000;

struct SafetensorsIndex {
  std::vector<std::string> files;           ///< sorted, each once
  std::map<std::string, uint32_t> tensors;  ///< the position in `files` of each tensor's file
};

/// `subject` (the path) opens every problem.
Result<SafetensorsIndex> ParseSafetensorsIndex(std::string_view json, const std::string& subject);

}  // namespace mergepipe
