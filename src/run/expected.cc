#include "run/expected.h"

#include <algorithm>

namespace mergepipe {
namespace {

// A replay that read other bytes than the run had an input that changed outside its fingerprint's
// samples.
void CompareReads(const ManifestTensor& now, const ManifestTensor& expected,
                  const Manifest& manifest, ProblemList& problems) {
  if (now.base_hash != expected.base_hash) {
    problems.Add("base '" + manifest.base.id + "': tensor '" + now.name + "'",
                 "is not what the run read: the file has changed",
                 "replay needs the very files of the run");
  }
  for (size_t i = 0; i < now.sources.size() && i < expected.sources.size(); ++i) {
    if (now.sources[i].expert != expected.sources[i].expert ||
        now.sources[i].read_hash == expected.sources[i].read_hash)
      continue;
    problems.Add(
        "expert '" + manifest.experts[now.sources[i].expert].id + "': tensor '" + now.name + "'",
        "is not what the run read: the file has changed", "replay needs the very files of the run");
  }
}

}  // namespace

Status CheckSideFilesExpected(const Manifest& manifest, const Manifest& expected) {
  ProblemList problems;
  for (const ManifestFile& file : manifest.side_files) {
    if (std::find(expected.side_files.begin(), expected.side_files.end(), file) ==
        expected.side_files.end()) {
      problems.Add("base '" + manifest.base.id + "': " + file.name,
                   "is not what it was in run " + expected.run_id,
                   "replay needs the very files of the run");
    }
  }
  for (const ManifestFile& file : expected.side_files) {
    const bool there = std::any_of(manifest.side_files.begin(), manifest.side_files.end(),
                                   [&](const ManifestFile& now) { return now.name == file.name; });
    if (!there)
      problems.Add("base '" + manifest.base.id + "': " + file.name,
                   "is missing; run " + expected.run_id + " had it");
  }
  return problems.ToStatus(ErrorKind::kBadInput);
}

Status CheckExpected(const Manifest& manifest, const Manifest& expected) {
  if (manifest.tensors.size() != expected.tensors.size() ||
      manifest.files.size() != expected.files.size()) {
    return Fail(ErrorKind::kVerification, "run " + expected.run_id,
                "has other tensors or files than this replay",
                "its manifest does not belong to its plan");
  }
  ProblemList changed;
  ProblemList different;
  for (size_t t = 0; t < manifest.tensors.size(); ++t) {
    CompareReads(manifest.tensors[t], expected.tensors[t], manifest, changed);
    if (manifest.tensors[t].hash == expected.tensors[t].hash) continue;
    different.Add("tensor '" + manifest.tensors[t].name + "'",
                  "has another hash than in run " + expected.run_id,
                  "this build computes something else than the one that made the run");
  }
  MERGEPIPE_RETURN_IF_ERROR(changed.ToStatus(ErrorKind::kBadInput));
  for (size_t f = 0; f < manifest.files.size(); ++f) {
    if (manifest.files[f] == expected.files[f]) continue;
    different.Add(manifest.files[f].name, "has another hash than in run " + expected.run_id);
  }
  return different.ToStatus(ErrorKind::kVerification);
}

}  // namespace mergepipe
