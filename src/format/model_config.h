#pragma once

#include <string>
#include <string_view>

#include "mergepipe/base/error.h"
#include "mergepipe/format/model.h"

namespace mergepipe {

inline constexpr uint64_t kMaxConfigBytes = 16'000'000;

/// What config.json says, at its top level or in `text_config` (multimodal models keep the language
/// model's part there). `subject` (the path) opens every problem.
Result<ModelConfig> ParseModelConfig(std::string_view json, const std::string& subject);

}  // namespace mergepipe
