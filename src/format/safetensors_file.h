#pragma once

#include <string>

#include "mergepipe/base/hash.h"
#include "mergepipe/format/safetensors.h"
#include "mergepipe/io/file.h"

namespace mergepipe {

/// What the first bytes of a .safetensors file tell.
struct SafetensorsFile {
  FileInfo info;            ///< as it was before the file was opened
  uint64_t data_begin = 0;  ///< 8 + N
  Hash128 header_hash;      ///< over [0, data_begin)
  SafetensorsHeader header;
};

/// Reads 8 + N bytes of the file at `path`, N being checked first, and parses them.
Result<SafetensorsFile> ReadSafetensorsFile(FileSystem& files, const std::string& path);

}  // namespace mergepipe
