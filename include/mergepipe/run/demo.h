#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mergepipe/base/dtype.h"
#include "mergepipe/base/error.h"
#include "mergepipe/base/units.h"
#include "mergepipe/io/file.h"

/// \file
/// A made-up base model and experts of it, for trying and measuring merges without downloading
/// anything: real architectures and sizes, random weights. transformers loads and runs them; what
/// they generate is noise.
///
/// Each value is a function of (seed, model, tensor name, element index) and of nothing else: the
/// same options give the same bytes on every machine, for every number of threads and of shards.
/// Experts differ from the base as fine-tuned ones do:
///  - the change is larger in some layers (up to 30 times), each expert having its own centre;
///  - in each matrix a few rows change much more than the others;
///  - about a third of the change has a direction that all experts share;
///  - some layers and most runs of embedding rows are frozen: the base's bits.
namespace mergepipe {

struct DemoOptions {
  std::string directory;        ///< made if absent
  std::string shape = "llama";  ///< architecture: see DemoSizes()
  std::string size = "tiny";
  uint32_t experts = 2;
  DType dtype = DType::kBF16;  ///< a float type
  uint32_t shards = 1;         ///< weight files of each model
  uint64_t seed = 0;
};

/// What was written.
struct DemoFamily {
  std::string base;                  ///< DIR/base
  std::vector<std::string> experts;  ///< DIR/expert_1, DIR/expert_2, ...
  Bytes bytes_written;
};

/// One line of the table of sizes.
struct DemoSize {
  std::string shape;        ///< "llama", "qwen3"
  std::string name;         ///< "tiny", "0.6b", ...
  uint64_t parameters = 0;  ///< of each model
};
/// All (shape, size) pairs that MakeDemoFamily knows, by shape, small sizes first.
std::vector<DemoSize> DemoSizes();

/// Writes base and experts in the Hugging Face layout. Each model is made under a hidden name
/// beside its own, and all are published at the end; on an error none remains. Memory is bounded
/// (a few MiB); uses OpenMP threads.
///
/// Errors: kUsage for options (all that are wrong together; the subject is "--shape", "--size",
/// "--experts",
/// "--dtype", "--shards") and for a model directory that exists already; kNoSpace before anything
/// is written if the disk cannot hold the family.
Result<DemoFamily> MakeDemoFamily(FileSystem& files, const DemoOptions& options);

}  // namespace mergepipe
