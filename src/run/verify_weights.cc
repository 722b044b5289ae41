#include "run/verify_weights.h"

#include <algorithm>
#include <unordered_map>

#include "mergepipe/base/text.h"
#include "run/sparse_output.h"

namespace mergepipe {
namespace {

void AddJobs(const std::string& path, uint64_t offset, uint64_t bytes, uint64_t block_bytes,
             WeightFiles& weights) {
  for (uint64_t at = 0; at < bytes; at += block_bytes)
    weights.jobs.push_back({&path, offset + at, std::min(block_bytes, bytes - at)});
}

// --- Full outputs, by their own headers. ---

using TensorsByName = std::unordered_map<std::string, TensorInfo>;

TensorsByName ReadTensors(FileSystem& files, const ManifestFile& file, const std::string& path,
                          WeightFiles& weights, ProblemList& problems) {
  TensorsByName tensors;
  weights.paths.push_back(path);
  weights.head_hashes.emplace_back();
  auto layout = ReadWeightFile(files, path);
  if (!layout) {
    problems.Add(layout.error());
    return tensors;
  }
  const ModelFile& read = layout->files[0];
  weights.head_hashes.back() = read.header_hash;
  if (read.info.size != file.size) {
    problems.Add(path,
                 "has " + std::to_string(read.info.size) + " bytes, the manifest says " +
                     std::to_string(file.size),
                 kVerifyRemedy);
  }
  for (TensorInfo& tensor : layout->tensors) {
    std::string name = tensor.name;
    tensors.emplace(std::move(name), std::move(tensor));
  }
  return tensors;
}

bool Describes(const ManifestTensor& expected, const TensorInfo& tensor) {
  return tensor.dtype == expected.dtype && tensor.shape == expected.shape;
}

void FindTensor(const Manifest& manifest, const ManifestTensor& expected,
                const std::vector<TensorsByName>& by_file, WeightFiles& weights,
                ProblemList& problems) {
  weights.first_job.push_back(weights.jobs.size());
  weights.found.push_back(false);
  const auto file =
      std::find_if(manifest.files.begin(), manifest.files.end(),
                   [&](const ManifestFile& listed) { return listed.name == expected.file; });
  if (file == manifest.files.end()) {
    problems.Add("tensor " + Quote(expected.name), "lies in a file that the manifest does not list",
                 kVerifyRemedy);
    return;
  }
  const auto f = static_cast<size_t>(file - manifest.files.begin());
  if (!weights.head_hashes[f]) return;  // said already
  const auto tensor = by_file[f].find(expected.name);
  if (tensor == by_file[f].end() || !Describes(expected, tensor->second)) {
    problems.Add(weights.paths[f] + ": tensor " + Quote(expected.name),
                 "is missing, or has another dtype or shape", kVerifyRemedy);
    return;
  }
  weights.found.back() = true;
  AddJobs(weights.paths[f], tensor->second.offset, tensor->second.bytes(),
          manifest.block_size * DTypeSize(expected.dtype), weights);
}

WeightFiles FindFullWeights(FileSystem& files, const Manifest& manifest,
                            const std::string& directory, ProblemList& problems) {
  WeightFiles weights;
  weights.paths.reserve(manifest.files.size());  // the jobs point to them
  std::vector<TensorsByName> by_file;
  for (const ManifestFile& file : manifest.files) {
    by_file.push_back(ReadTensors(files, file, JoinPath(directory, file.name), weights, problems));
  }
  for (const ManifestTensor& tensor : manifest.tensors)
    FindTensor(manifest, tensor, by_file, weights, problems);
  weights.first_job.push_back(weights.jobs.size());
  return weights;
}

// --- Sparse outputs, whose one file lies as the manifest says. ---

// The file's head; nothing, and a problem, if the blocks cannot be where they should.
std::optional<std::string> ReadHead(FileSystem& files, const Manifest& manifest,
                                    const std::string& path, const OutputLayout& layout,
                                    ProblemList& problems) {
  if (manifest.files.size() != 1 || manifest.files[0].name != kSparseName ||
      manifest.files[0].size != layout.files[0].size) {
    problems.Add(path, "is not the one file that the manifest lists", kVerifyRemedy);
    return std::nullopt;
  }
  auto head = ReadSparseHead(files, path, layout);
  if (!head) {
    problems.Add(head.error());
    return std::nullopt;
  }
  if (*head != layout.files[0].header)
    problems.Add(path, "its header or indexes are not those of the manifest", kVerifyRemedy);
  return std::move(*head);
}

WeightFiles FindSparseWeights(FileSystem& files, const Manifest& manifest,
                              const std::string& directory, ProblemList& problems) {
  WeightFiles weights;
  weights.paths.push_back(JoinPath(directory, kSparseName));
  const auto layout = SparseLayoutOf(manifest);
  if (!layout) problems.Add(layout.error());
  const auto head =
      layout ? ReadHead(files, manifest, weights.paths[0], *layout, problems) : std::nullopt;
  weights.head_hashes.resize(manifest.files.size());
  if (head) weights.head_hashes[0] = HashText(*head);
  for (size_t t = 0; t < manifest.tensors.size(); ++t) {
    weights.first_job.push_back(weights.jobs.size());
    weights.found.push_back(head.has_value());
    if (!head) continue;
    const uint64_t end =
        t + 1 < layout->tensors.size() ? layout->tensors[t + 1].offset : layout->files[0].size;
    const TensorInfo& tensor = layout->tensors[t];
    AddJobs(weights.paths[0], tensor.offset, end - tensor.offset,
            manifest.block_size * DTypeSize(tensor.dtype), weights);
  }
  weights.first_job.push_back(weights.jobs.size());
  return weights;
}

}  // namespace

WeightFiles FindWeights(FileSystem& files, const Manifest& manifest, const std::string& directory,
                        ProblemList& problems) {
  return manifest.output == OutputForm::kSparse
             ? FindSparseWeights(files, manifest, directory, problems)
             : FindFullWeights(files, manifest, directory, problems);
}

void CompareWeights(const Manifest& manifest, const WeightFiles& weights,
                    const std::vector<Hash128>& hashes, ProblemList& problems) {
  std::vector<std::vector<Hash128>> by_file(manifest.files.size());
  for (size_t t = 0; t < manifest.tensors.size(); ++t) {
    const ManifestTensor& expected = manifest.tensors[t];
    const std::vector<Hash128> blocks(
        hashes.begin() + static_cast<std::ptrdiff_t>(weights.first_job[t]),
        hashes.begin() + static_cast<std::ptrdiff_t>(weights.first_job[t + 1]));
    const Hash128 hash = TensorHash(blocks);
    for (size_t f = 0; f < manifest.files.size(); ++f) {
      if (manifest.files[f].name == expected.file) by_file[f].push_back(hash);
    }
    if (weights.found[t] && hash != expected.hash) {
      problems.Add((expected.file.empty() ? kSparseName : expected.file) + ": tensor " +
                       Quote(expected.name),
                   "does not have the hash that the manifest states", kVerifyRemedy);
    }
  }
  for (size_t f = 0; f < manifest.files.size(); ++f) {
    if (!weights.head_hashes[f]) continue;
    if (WeightFileHash(*weights.head_hashes[f], by_file[f]) != manifest.files[f].hash) {
      problems.Add(weights.paths[f],
                   "does not have the hash that the manifest states (header or tensors)",
                   kVerifyRemedy);
    }
  }
}

}  // namespace mergepipe
