#pragma once

#include "mergepipe/manifest/manifest.h"
#include "run/block_hashes.h"

namespace mergepipe {

/// The weight files of an output as they are found, and the blocks of all tensors in manifest
/// order. Not to be copied: the jobs point into it.
struct WeightFiles {
  WeightFiles() = default;
  WeightFiles(WeightFiles&&) = default;
  WeightFiles& operator=(WeightFiles&&) = delete;

  std::vector<std::string> paths;  ///< one a file of the manifest
  /// Of the bytes before the data; empty if the file cannot be read.
  std::vector<std::optional<Hash128>> head_hashes;
  std::vector<BlockJob> jobs;
  std::vector<uint64_t> first_job;  ///< of each tensor, and the end
  std::vector<bool> found;          ///< each tensor, as the manifest describes it
};

/// What to do about an output that is not what its manifest states.
inline constexpr const char* kVerifyRemedy =
    "do not use this output; replay the run or merge again";

/// Looks at the weight files in `directory`, full or sparse; what does not fit the manifest becomes
/// a problem and is not to be hashed.
WeightFiles FindWeights(FileSystem& files, const Manifest& manifest, const std::string& directory,
                        ProblemList& problems);

/// Compares the hashes of all jobs with the manifest's.
void CompareWeights(const Manifest& manifest, const WeightFiles& weights,
                    const std::vector<Hash128>& hashes, ProblemList& problems);

}  // namespace mergepipe
