#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mergepipe/base/error.h"
#include "mergepipe/io/file.h"

/// \file
/// The files of a model directory besides its weights: config, tokenizer, chat template, code,
/// README.
namespace mergepipe {

/// Larger files are taken for weights in some unknown form.
inline constexpr uint64_t kMaxSideFileBytes = uint64_t{256} << 20;

/// A file that goes into the output as it is.
struct SideFile {
  std::string path;  ///< relative to the directory, with '/'
  uint64_t size = 0;

  bool operator==(const SideFile&) const = default;
};

/// A file or directory that does not, and why.
struct LeftOutFile {
  std::string path;
  std::string reason;

  bool operator==(const LeftOutFile&) const = default;
};

struct SideFiles {
  std::vector<SideFile> copied;       ///< sorted by path
  std::vector<LeftOutFile> left_out;  ///< sorted by path
};

/// Sorts everything under `directory`, at any depth, into the two lists. Links to files are
/// followed, links to directories are not. Left out are: weights of any kind (by their extension)
/// and their indexes, hidden names, a `manifest.json` at the top (the record of the merge that made
/// this model), what is no regular file, and files over kMaxSideFileBytes.
Result<SideFiles> ListSideFiles(FileSystem& files, const std::string& directory);

}  // namespace mergepipe
