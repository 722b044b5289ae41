#pragma once

#include <memory>

#include "mergepipe/exec/slice.h"

namespace mergepipe {

/// Opens an input. kBadInput if its size or time is not what rank 0 saw.
Result<std::unique_ptr<ReadableFile>> OpenUnchanged(FileSystem& files, const SourceFile& source);

}  // namespace mergepipe
