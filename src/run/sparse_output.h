#pragma once

#include "mergepipe/exec/slice.h"
#include "mergepipe/manifest/manifest.h"

namespace mergepipe {

/// Where every byte of a plan's sparse output goes.
Result<OutputLayout> SparseLayoutOf(const Plan& plan);
/// The same from the record of one.
Result<OutputLayout> SparseLayoutOf(const Manifest& manifest);

/// The bytes before the blocks of the sparse file at `path`. kBadInput if the file has another size
/// than `layout` says.
Result<std::string> ReadSparseHead(FileSystem& files, const std::string& path,
                                   const OutputLayout& layout);

/// A sparse output whose touched blocks are taken over instead of being merged again.
struct SparseOutput {
  std::string directory;
  SourceFile file;
  OutputLayout layout;
  Manifest manifest;
};

}  // namespace mergepipe
