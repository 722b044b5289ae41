#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mergepipe/io/file.h"

namespace mergepipe {

/// `files` (which must outlive it) as far as it is read; what is written is dropped. Every file and
/// directory below `discarded` is there and takes any bytes; nothing else can be written or made,
/// and nothing at all renamed or removed (kInternal).
std::unique_ptr<FileSystem> DiscardWrites(FileSystem& files, std::string discarded);

}  // namespace mergepipe
