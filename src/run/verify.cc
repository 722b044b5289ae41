#include <algorithm>
#include <set>
#include <unordered_map>

#include "mergepipe/base/text.h"
#include "mergepipe/kernels/parallel.h"
#include "mergepipe/manifest/manifest_codec.h"
#include "mergepipe/manifest/run_folder.h"
#include "mergepipe/plan/plan_codec.h"
#include "mergepipe/run/records.h"
#include "run/stored_run.h"

namespace mergepipe {
namespace {

constexpr const char* kRemedy = "do not use this output; replay the run or merge again";
constexpr size_t kHexDigits = 32;
constexpr uint64_t kHashBuffer = 16 * kMiB;

// A block of a weight file whose hash is to be taken.
struct BlockJob {
  const std::string* path;
  uint64_t offset;
  uint64_t size;
};

// The weight files as their own headers describe them, and the blocks of all tensors in manifest
// order.
struct OutputFiles {
  std::vector<ModelLayout> layouts;  // one a file of the manifest; empty if it cannot be read
  std::vector<std::string> paths;
  std::vector<BlockJob> jobs;
  std::vector<uint64_t> first_job;  // of each tensor
  std::vector<bool> found;          // each tensor, as the manifest describes it
};

bool Describes(const ManifestTensor& expected, const TensorInfo& tensor) {
  return tensor.name == expected.name && tensor.dtype == expected.dtype &&
         tensor.shape == expected.shape;
}

// Collects the blocks of every tensor of the manifest; what does not fit becomes a problem and is
// not hashed.
OutputFiles CollectJobs(FileSystem& files, const Manifest& manifest, const std::string& directory,
                        ProblemList& problems) {
  OutputFiles out;
  for (const ManifestFile& file : manifest.files) {
    out.paths.push_back(JoinPath(directory, file.name));
    auto layout = ReadModel(files, out.paths.back());
    if (!layout) problems.Add(layout.error());
    out.layouts.push_back(layout ? std::move(*layout) : ModelLayout());
    const ModelLayout& read = out.layouts.back();
    if (!read.files.empty() && read.files[0].info.size != file.size) {
      problems.Add(out.paths.back(),
                   "has " + std::to_string(read.files[0].info.size) + " bytes, the manifest says " +
                       std::to_string(file.size),
                   kRemedy);
    }
  }
  std::vector<std::unordered_map<std::string_view, const TensorInfo*>> by_name(out.layouts.size());
  for (size_t f = 0; f < out.layouts.size(); ++f) {
    for (const TensorInfo& tensor : out.layouts[f].tensors)
      by_name[f].emplace(tensor.name, &tensor);
  }
  for (const ManifestTensor& expected : manifest.tensors) {
    out.first_job.push_back(out.jobs.size());
    out.found.push_back(false);
    const auto file = std::find_if(
        manifest.files.begin(), manifest.files.end(),
        [&](const ManifestFile& candidate) { return candidate.name == expected.file; });
    if (file == manifest.files.end()) {
      problems.Add("tensor " + Quote(expected.name),
                   "lies in a file that the manifest does not list", kRemedy);
      continue;
    }
    const auto f = static_cast<size_t>(file - manifest.files.begin());
    const auto entry = by_name[f].find(expected.name);
    const TensorInfo* tensor = entry == by_name[f].end() ? nullptr : entry->second;
    if (tensor == nullptr || !Describes(expected, *tensor)) {
      if (!out.layouts[f].files.empty()) {
        problems.Add(out.paths[f] + ": tensor " + Quote(expected.name),
                     "is missing, or has another dtype or shape", kRemedy);
      }
      continue;
    }
    out.found.back() = true;
    const uint64_t block_bytes = manifest.block_size * DTypeSize(tensor->dtype);
    for (uint64_t at = 0; at < tensor->bytes(); at += block_bytes) {
      out.jobs.push_back(
          {&out.paths[f], tensor->offset + at, std::min(block_bytes, tensor->bytes() - at)});
    }
  }
  out.first_job.push_back(out.jobs.size());
  return out;
}

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

// Hashes of this rank's share of the blocks, as hex, one after the other.
Result<std::string> HashShare(FileSystem& files, const Communicator& communicator,
                              const std::vector<BlockJob>& jobs, int threads) {
  const auto ranks = static_cast<uint64_t>(communicator.size());
  const auto rank = static_cast<uint64_t>(communicator.rank().value);
  const uint64_t begin = jobs.size() * rank / ranks;
  const uint64_t end = jobs.size() * (rank + 1) / ranks;
  std::map<std::string, std::unique_ptr<ReadableFile>> open;
  for (uint64_t i = begin; i < end; ++i) {
    auto& file = open[*jobs[i].path];
    if (!file) {
      MERGEPIPE_ASSIGN_OR_RETURN(file, files.OpenForReading(*jobs[i].path));
    }
  }
  std::string hex((end - begin) * kHexDigits, '0');
  MERGEPIPE_RETURN_IF_ERROR(ParallelFor(end - begin, threads, [&](uint64_t i) -> Status {
    const BlockJob& job = jobs[begin + i];
    MERGEPIPE_ASSIGN_OR_RETURN(const Hash128 hash,
                               HashRange(*open.at(*job.path), job.offset, job.size));
    hash.ToHex().copy(hex.data() + i * kHexDigits, kHexDigits);
    return {};
  }));
  return hex;
}

Result<std::vector<Hash128>> JoinShares(const std::vector<std::string>& shares) {
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

void CompareTensors(const Manifest& manifest, const OutputFiles& out,
                    const std::vector<Hash128>& hashes, ProblemList& problems) {
  std::vector<std::vector<Hash128>> by_file(manifest.files.size());
  for (size_t t = 0; t < manifest.tensors.size(); ++t) {
    const ManifestTensor& expected = manifest.tensors[t];
    const std::vector<Hash128> blocks(
        hashes.begin() + static_cast<std::ptrdiff_t>(out.first_job[t]),
        hashes.begin() + static_cast<std::ptrdiff_t>(out.first_job[t + 1]));
    const Hash128 hash = TensorHash(blocks);
    for (size_t f = 0; f < manifest.files.size(); ++f) {
      if (manifest.files[f].name == expected.file) by_file[f].push_back(hash);
    }
    if (out.found[t] && hash != expected.hash) {
      problems.Add(expected.file + ": tensor " + Quote(expected.name),
                   "does not have the hash that the manifest states", kRemedy);
    }
  }
  for (size_t f = 0; f < manifest.files.size(); ++f) {
    if (out.layouts[f].files.empty()) continue;
    if (WeightFileHash(out.layouts[f].files[0].header_hash, by_file[f]) != manifest.files[f].hash) {
      problems.Add(out.paths[f],
                   "does not have the hash that the manifest states (header or tensors)", kRemedy);
    }
  }
}

Status CheckSideFile(FileSystem& files, const std::string& directory, const ManifestFile& expected,
                     ProblemList& problems) {
  const std::string path = JoinPath(directory, expected.name);
  const auto file = files.OpenForReading(path);
  if (!file) {
    problems.Add(file.error());
    return {};
  }
  MERGEPIPE_ASSIGN_OR_RETURN(const Hash128 hash, HashRange(**file, 0, (*file)->size()));
  if ((*file)->size() != expected.size || hash != expected.hash) {
    problems.Add(path, "is not what the manifest states", kRemedy);
  }
  return {};
}

// Names in the directory that the manifest does not know.
Status NoteStrangers(FileSystem& files, const std::string& directory, const Manifest& manifest,
                     VerifyOutcome& outcome) {
  std::set<std::string> known = {kManifestName};
  for (const auto* list : {&manifest.files, &manifest.side_files}) {
    for (const ManifestFile& file : *list) known.insert(file.name.substr(0, file.name.find('/')));
  }
  MERGEPIPE_ASSIGN_OR_RETURN(const auto entries, files.List(directory));
  for (const DirectoryEntry& entry : entries) {
    if (!known.contains(entry.name))
      outcome.notes.push_back(JoinPath(directory, entry.name) + " is not in the manifest");
  }
  return {};
}

// The run folder's records: the same manifest, and the plan that it names.
Status CheckRunFolder(FileSystem& files, const std::string& folder, const Manifest& manifest,
                      const std::string& manifest_text, ProblemList& problems) {
  const std::string plan_path = JoinPath(folder, kPlanName);
  const std::string manifest_path = JoinPath(folder, kManifestName);
  const auto stored = ReadSmallFile(files, manifest_path, kMaxRecordBytes);
  if (!stored) {
    problems.Add(stored.error());
  } else if (*stored != manifest_text) {
    problems.Add(manifest_path, "is not the manifest of the output", "one of the two was changed");
  }
  const auto plan_text = ReadSmallFile(files, plan_path, kMaxRecordBytes);
  if (!plan_text) {
    problems.Add(plan_text.error());
    return {};
  }
  const auto plan = ParsePlan(*plan_text, plan_path);
  if (!plan) {
    problems.Add(plan.error());
  } else if (PlanHash(*plan) != manifest.plan_hash) {
    problems.Add(plan_path, "is not the plan of this output", "the run folder was changed");
  }
  return {};
}

Status CheckRecords(FileSystem& files, const RecordPlaces& places, const Manifest& manifest,
                    const std::string& manifest_text, ProblemList& problems,
                    VerifyOutcome& outcome) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto catalog, Catalog::OpenIfExists(places.catalog));
  bool run_known = false;
  if (catalog) {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto run, catalog->FindRun(manifest.run_id));
    run_known = run.has_value();
    if (!run) {
      outcome.notes.push_back("the catalog " + places.catalog + " does not know run " +
                              manifest.run_id);
    } else if (run->manifest_hash != ManifestHash(manifest) ||
               run->plan_hash != manifest.plan_hash) {
      problems.Add(places.catalog,
                   "has other hashes for run " + manifest.run_id + " than the manifest",
                   "one of the two was changed");
    }
  } else {
    outcome.notes.push_back("there is no catalog " + places.catalog + " to compare with");
  }
  const auto folder = FindRunFolder(files, catalog.get(), places.runs_directory, manifest.run_id);
  if (!folder && run_known) {
    problems.Add("run " + manifest.run_id,
                 "is in the catalog, but its folder is gone or has no plan.json",
                 "restore the run folder");
    return {};
  }
  if (!folder) {
    outcome.notes.push_back("the run folder of " + manifest.run_id +
                            " was not found: the plan is not checked");
    return {};
  }
  return CheckRunFolder(files, *folder, manifest, manifest_text, problems);
}

Result<std::string> ReadManifestText(FileSystem& files, const std::string& directory) {
  MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, files.Stat(directory));
  const std::string path = JoinPath(directory, kManifestName);
  MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files.Exists(path));
  MERGEPIPE_ASSIGN_OR_RETURN(const bool is_run, files.Exists(JoinPath(directory, kPlanName)));
  if (info.kind != FileKind::kDirectory || !there || is_run) {
    return Fail(ErrorKind::kBadInput, directory,
                "is not an output of mergepipe (it has no manifest.json, or is a run folder)",
                "give the directory that a merge wrote");
  }
  return ReadSmallFile(files, path, kMaxRecordBytes);
}

Status CheckTheRest(FileSystem& files, const RecordPlaces& places, const std::string& directory,
                    const Manifest& manifest, const std::string& manifest_text,
                    ProblemList& problems, VerifyOutcome& outcome) {
  for (const ManifestFile& file : manifest.side_files) {
    MERGEPIPE_RETURN_IF_ERROR(CheckSideFile(files, directory, file, problems));
    outcome.bytes += file.size;
  }
  MERGEPIPE_RETURN_IF_ERROR(NoteStrangers(files, directory, manifest, outcome));
  MERGEPIPE_RETURN_IF_ERROR(
      CheckRecords(files, places, manifest, manifest_text, problems, outcome));
  outcome.run_id = manifest.run_id;
  outcome.files = manifest.files.size() + manifest.side_files.size();
  outcome.tensors = manifest.tensors.size();
  for (const ManifestFile& file : manifest.files) outcome.bytes += file.size;
  return {};
}

}  // namespace

Result<VerifyOutcome> VerifyOutput(FileSystem& files, Communicator& communicator,
                                   const RecordPlaces& places, const std::string& directory,
                                   int threads) {
  Result<std::string> text = std::string();
  if (communicator.is_root()) text = ReadManifestText(files, directory);
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(text ? Status() : Status(tl::unexpected(text.error()))));
  communicator.Broadcast(*text);
  const auto manifest = ParseManifest(*text, JoinPath(directory, kManifestName));
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(manifest ? Status() : Status(tl::unexpected(manifest.error()))));

  ProblemList problems;
  const OutputFiles out = CollectJobs(files, *manifest, directory, problems);
  const auto share = HashShare(files, communicator, out.jobs, threads);
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(share ? Status() : Status(tl::unexpected(share.error()))));
  const std::vector<std::string> shares = communicator.Gather(*share);

  VerifyOutcome outcome;
  Status status;
  if (communicator.is_root()) {
    const auto hashes = JoinShares(shares);
    if (!hashes || hashes->size() != out.jobs.size()) {
      status = Fail(ErrorKind::kIo, directory, "does not look the same to all ranks",
                    "use a filesystem that all hosts share");
    } else {
      CompareTensors(*manifest, out, *hashes, problems);
      status = CheckTheRest(files, places, directory, *manifest, *text, problems, outcome);
      if (status) status = problems.ToStatus(ErrorKind::kVerification);
    }
  }
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(status));
  return outcome;
}

}  // namespace mergepipe
