#include "run/block_hashes.h"

#include <algorithm>
#include <map>
#include <memory>

#include "mergepipe/base/units.h"
#include "mergepipe/kernels/parallel.h"
#include "run/fields.h"

namespace mergepipe {
namespace {

constexpr size_t kHexDigits = 32;
constexpr uint64_t kHashBuffer = 16 * kMiB;

std::span<const BlockJob> ShareOf(const std::vector<BlockJob>& jobs, uint64_t rank,
                                  uint64_t ranks) {
  const uint64_t begin = jobs.size() * rank / ranks;
  const uint64_t end = jobs.size() * (rank + 1) / ranks;
  return std::span(jobs).subspan(begin, end - begin);
}

// Jobs for one rank: a path where it changes, then offset and size.
std::string Describe(std::span<const BlockJob> jobs) {
  Fields fields;
  const std::string* path = nullptr;
  for (const BlockJob& job : jobs) {
    fields.Add(job.path == path ? "" : *job.path);
    fields.Add(job.offset);
    fields.Add(job.size);
    path = job.path;
  }
  return fields.Take();
}

struct GivenJobs {
  std::vector<std::unique_ptr<std::string>> paths;
  std::vector<BlockJob> jobs;
};

GivenJobs ParseJobs(std::string description) {
  GivenJobs given;
  Fields fields(std::move(description));
  while (!fields.AtEnd()) {
    if (std::string path = fields.Next(); !path.empty())
      given.paths.push_back(std::make_unique<std::string>(std::move(path)));
    if (given.paths.empty()) break;
    const uint64_t offset = fields.NextNumber();
    const uint64_t size = fields.NextNumber();
    given.jobs.push_back({given.paths.back().get(), offset, size});
  }
  return given;
}

}  // namespace

Result<Hash128> HashRange(ReadableFile& file, uint64_t offset, uint64_t size) {
  static thread_local std::vector<std::byte> buffer;
  buffer.resize(std::min(size, kHashBuffer));
  Hasher hasher;
  while (size > 0) {
    const std::span<std::byte> piece(buffer.data(), std::min<uint64_t>(size, buffer.size()));
    MERGEPIPE_RETURN_IF_ERROR(file.ReadAt(offset, piece));
    hasher.Update(piece);
    offset += piece.size();
    size -= piece.size();
  }
  return hasher.Finish();
}

std::span<const BlockJob> ShareOf(const std::vector<BlockJob>& jobs,
                                  const Communicator& communicator) {
  return ShareOf(jobs, static_cast<uint64_t>(communicator.rank().value),
                 static_cast<uint64_t>(communicator.size()));
}

Result<std::string> HashBlocks(FileSystem& files, std::span<const BlockJob> jobs, int threads) {
  std::map<std::string, std::unique_ptr<ReadableFile>> open;
  for (const BlockJob& job : jobs) {
    auto& file = open[*job.path];
    if (!file) {
      MERGEPIPE_ASSIGN_OR_RETURN(file, files.OpenForReading(*job.path));
    }
  }
  std::string hex(jobs.size() * kHexDigits, '0');
  MERGEPIPE_RETURN_IF_ERROR(ParallelFor(jobs.size(), threads, [&](uint64_t i) -> Status {
    const BlockJob& job = jobs[i];
    MERGEPIPE_ASSIGN_OR_RETURN(const Hash128 hash,
                               HashRange(*open.at(*job.path), job.offset, job.size));
    hash.ToHex().copy(hex.data() + i * kHexDigits, kHexDigits);
    return {};
  }));
  return hex;
}

Result<std::vector<Hash128>> JoinHashes(const std::vector<std::string>& shares) {
  std::vector<Hash128> hashes;
  for (const std::string& share : shares) {
    for (size_t at = 0; at < share.size(); at += kHexDigits) {
      const auto hash = Hash128::FromHex(std::string_view(share).substr(at, kHexDigits));
      if (!hash)
        return Fail(ErrorKind::kInternal, "verify", "a hash arrived damaged from another rank");
      hashes.push_back(*hash);
    }
  }
  return hashes;
}

Result<std::vector<Hash128>> HashOnAll(FileSystem& files, Communicator& communicator,
                                       const std::vector<BlockJob>& jobs, int threads) {
  std::vector<std::string> shares;
  const auto ranks = static_cast<uint64_t>(communicator.size());
  if (communicator.is_root()) {
    for (uint64_t rank = 0; rank < ranks; ++rank)
      shares.push_back(Describe(ShareOf(jobs, rank, ranks)));
  }
  const GivenJobs mine = ParseJobs(communicator.Scatter(std::move(shares)));
  const auto hex = HashBlocks(files, mine.jobs, threads);
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(hex ? Status() : Status(tl::unexpected(hex.error()))));
  const auto hashes = JoinHashes(communicator.Gather(*hex));
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(hashes ? Status() : Status(tl::unexpected(hashes.error()))));
  return *hashes;
}

}  // namespace mergepipe
