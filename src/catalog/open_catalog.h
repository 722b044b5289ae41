#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "mergepipe/base/error.h"
#include "mergepipe/catalog/catalog.h"

namespace mergepipe {

/// How long opening and reading wait for another process's lock. What writes waits
/// Connection::kPatience times as long.
inline constexpr std::chrono::milliseconds kBusyTimeout{5000};

enum class IfAbsent { kFail, kCreate, kReturnNull };

/// What the public ways to open a catalog share.
Result<std::unique_ptr<Catalog>> OpenCatalog(const std::string& path, IfAbsent if_absent,
                                             std::chrono::milliseconds busy_timeout = kBusyTimeout);

}  // namespace mergepipe
