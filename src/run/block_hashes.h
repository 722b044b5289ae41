#pragma once

#include <span>
#include <string>
#include <vector>

#include "mergepipe/base/hash.h"
#include "mergepipe/comm/communicator.h"
#include "mergepipe/io/file.h"

namespace mergepipe {

/// A block of a weight file whose hash is to be taken.
struct BlockJob {
  const std::string* path;
  uint64_t offset;
  uint64_t size;
};

Result<Hash128> HashRange(ReadableFile& file, uint64_t offset, uint64_t size);

/// Those of `jobs` that are this rank's share, when all ranks have the same jobs.
std::span<const BlockJob> ShareOf(const std::vector<BlockJob>& jobs,
                                  const Communicator& communicator);

/// Hashes of the jobs as hex, one after the other, on so many threads.
Result<std::string> HashBlocks(FileSystem& files, std::span<const BlockJob> jobs, int threads);

/// The hashes of all ranks' shares, in rank order.
Result<std::vector<Hash128>> JoinHashes(const std::vector<std::string>& shares);

/// Collective: all ranks hash what rank 0 says (`jobs` counts there only) and rank 0 gets the
/// hashes, in order; the others get none. An error is everyone's.
Result<std::vector<Hash128>> HashOnAll(FileSystem& files, Communicator& communicator,
                                       const std::vector<BlockJob>& jobs, int threads);

}  // namespace mergepipe
