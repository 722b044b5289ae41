#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "mergepipe/io/file.h"

namespace mergepipe {

/// A run of bytes to be read, or to be written.
struct FileRead {
  ReadableFile* file;
  uint64_t offset;
  std::span<std::byte> bytes;
};
struct FileWrite {
  WritableFile* file;
  uint64_t offset;
  std::span<const std::byte> bytes;
};

/// Moves all runs, long ones in pieces, on all threads.
Status ReadAll(const std::vector<FileRead>& runs, int threads);
Status WriteAll(const std::vector<FileWrite>& runs, int threads);

}  // namespace mergepipe
