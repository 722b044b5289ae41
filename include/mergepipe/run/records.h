#pragma once

#include <optional>
#include <string>
#include <vector>

#include "mergepipe/comm/communicator.h"
#include "mergepipe/io/file.h"
#include "mergepipe/manifest/manifest.h"
#include "mergepipe/plan/plan.h"

namespace mergepipe {

/// Where records are looked for.
struct RecordPlaces {
  std::string catalog;  ///< need not exist
  std::string runs_directory = "runs";
};

/// A run read back from its folder; plan and manifest have the hashes that they state.
struct StoredRun {
  std::string directory;
  Plan plan;
  std::string plan_text;
  Manifest manifest;
  std::string manifest_text;
};

/// `run` is a run id, a run folder or the output directory of a run.
Result<StoredRun> LoadRun(FileSystem& files, const RecordPlaces& places, const std::string& run);

struct VerifyOutcome {
  std::string run_id;
  uint64_t files = 0;
  uint64_t tensors = 0;
  uint64_t bytes = 0;  ///< hashed
  std::vector<std::string>
      notes;  ///< what could not be checked, and files that the manifest does not know
};

/// Re-hashes the output in `directory` against its manifest, on all ranks and threads, and checks
/// the manifest and the plan against the run folder and the catalog. kVerification lists everything
/// that is not what the record says; kBadInput if `directory` is no output of this program.
/// Collective; the outcome is rank 0's.
Result<VerifyOutcome> VerifyOutput(FileSystem& files, Communicator& communicator,
                                   const RecordPlaces& places, const std::string& directory,
                                   int threads);

/// How far one tensor of B is from that of A.
struct TensorDistance {
  std::string name;
  std::string note;  ///< "only in A", "shapes differ", ...; then the numbers are not set
  uint64_t elements = 0;
  double l2 = 0;            ///< |B - A|
  double reference_l2 = 0;  ///< |A|
  double max_abs = 0;
  uint64_t equal_elements = 0;  ///< with the same bits (the same value where dtypes differ)

  double Relative() const { return reference_l2 > 0 ? l2 / reference_l2 : (l2 > 0 ? 1.0 : 0.0); }
  double EqualShare() const {
    return elements == 0 ? 1.0
                         : static_cast<double>(equal_elements) / static_cast<double>(elements);
  }
};

struct CheckpointDistance {
  std::vector<TensorDistance> tensors;  ///< in A's order, then those that only B has
  TensorDistance total;                 ///< over all tensors that both have with the same shape
  bool Equal() const;
};

/// Distances between two checkpoints, in double precision of the float64 values; sums in a fixed
/// order.
Result<CheckpointDistance> DiffCheckpoints(FileSystem& files, const std::string& a,
                                           const std::string& b, int threads);

/// What differs between two records (plan.json, manifest.json, or the plans and manifests of two
/// runs), a line each.
Result<std::vector<std::string>> DiffRecords(FileSystem& files, const RecordPlaces& places,
                                             const std::string& a, const std::string& b);

/// The path of a checkpoint that is named by its path or its registered id; `argument` itself if it
/// is neither.
Result<std::string> CheckpointPath(FileSystem& files, const std::string& catalog,
                                   const std::string& argument);

/// Whether `argument` is a checkpoint (a directory with weights, or a weight file) rather than a
/// record or a run.
bool IsCheckpoint(FileSystem& files, const std::string& argument);

}  // namespace mergepipe
