#pragma once

#include <string>

#include "mergepipe/io/file.h"

namespace mergepipe {

/// Of an open file; `direct` is what is known of the filesystem, and not tried.
DiskTraits DiskTraitsOf(int fd);

/// FileSystem::TraitsOf.
Result<DiskTraits> DiskTraitsOf(const std::string& path);

}  // namespace mergepipe
