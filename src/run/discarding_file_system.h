#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mergepipe/io/file.h"

namespace mergepipe {

/// `files` (which must outlive it) as far as it is read; what is written is dropped. Every file
/// below `discarded` is there and takes any bytes; nothing else can be written, made, renamed or
/// removed (kInternal).
std::unique_ptr<FileSystem> DiscardWrites(FileSystem& files, std::string discarded);

}  // namespace mergepipe
