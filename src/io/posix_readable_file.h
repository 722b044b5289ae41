#pragma once

#include <memory>
#include <string>

#include "mergepipe/io/file.h"

namespace mergepipe {

/// FileSystem::OpenForReading.
Result<std::unique_ptr<ReadableFile>> OpenPosixForReading(const std::string& path);

/// FileSystem::OpenForStreaming.
Result<std::unique_ptr<ReadableFile>> OpenPosixForStreaming(const std::string& path,
                                                            TransferMode mode);

}  // namespace mergepipe
