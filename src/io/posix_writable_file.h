#pragma once

#include <memory>
#include <string>

#include "mergepipe/io/file.h"

namespace mergepipe {

/// FileSystem::Create and OpenForWriting.
Result<std::unique_ptr<WritableFile>> CreatePosix(const std::string& path, uint64_t size);
Result<std::unique_ptr<WritableFile>> OpenPosixForWriting(const std::string& path);
Result<std::unique_ptr<WritableFile>> OpenPosixForWriting(const std::string& path,
                                                          TransferMode mode);

}  // namespace mergepipe
