#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace mergepipe {

/// The name with the smallest edit distance to `name`, if it is close enough to be a likely typo
/// (at most a third of the longer length, rounded up). The first of equals wins.
std::optional<std::string> NearestName(std::string_view name, std::span<const std::string> known);

}  // namespace mergepipe
