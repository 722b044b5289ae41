#include "mergepipe/run/demo.h"

#include <fmt/format.h>

#include <algorithm>

#include "mergepipe/base/checked.h"
#include "mergepipe/base/nearest_name.h"
#include "mergepipe/base/text.h"
#include "mergepipe/io/publish.h"
#include "run/demo_shapes.h"
#include "run/demo_texts.h"
#include "run/demo_weights.h"

namespace mergepipe {
namespace {

// The files of a model. All models of a family have the same, but for the values.
struct ModelFiles {
  std::vector<DemoText> texts;
  std::vector<DemoShard> shards;
  Bytes bytes;
};

std::vector<std::string> KnownShapes() {
  std::vector<std::string> names;
  for (const DemoShape& row : DemoShapes()) {
    if (names.empty() || names.back() != row.shape) names.emplace_back(row.shape);
  }
  return names;
}

std::vector<std::string> KnownSizes(std::string_view shape) {
  std::vector<std::string> names;
  for (const DemoShape& row : DemoShapes()) {
    if (row.shape == shape) names.emplace_back(row.size);
  }
  return names;
}

void AddUnknown(std::string_view option, std::string_view value,
                const std::vector<std::string>& known, ProblemList& problems) {
  const auto nearest = NearestName(value, known);
  problems.Add(std::string(option),
               fmt::format("{} is not known{}", Quote(value),
                           nearest ? fmt::format(" (did you mean {}?)", *nearest) : ""),
               fmt::format("choose one of {}", JoinNames(known)));
}

Result<DemoShape> CheckOptions(const DemoOptions& options) {
  ProblemList problems;
  const auto shape = FindDemoShape(options.shape, options.size);
  const std::vector<std::string> sizes = KnownSizes(options.shape);
  if (sizes.empty()) {
    AddUnknown("--shape", options.shape, KnownShapes(), problems);
  } else if (!shape) {
    AddUnknown("--size", options.size, sizes, problems);
  }
  if (options.experts == 0) problems.Add("--experts", "0 experts", "ask for at least 1");
  if (!IsFloat(options.dtype)) {
    problems.Add("--dtype", fmt::format("{} is not a float type", DTypeName(options.dtype)),
                 "choose one of F64, F32, F16, BF16");
  }
  if (options.shards == 0) problems.Add("--shards", "0 shards", "ask for at least 1");
  if (shape) {
    const size_t most = DemoTensors(*shape).size();
    if (options.shards > most) {
      problems.Add("--shards", fmt::format("{} shards for {} tensors", options.shards, most),
                   fmt::format("ask for at most {}", most));
    }
  }
  MERGEPIPE_RETURN_IF_ERROR(problems.ToStatus(ErrorKind::kUsage));
  return *shape;
}

ModelFiles PlanFiles(const DemoShape& shape, const DemoOptions& options) {
  ModelFiles plan;
  plan.texts = DemoSideFiles(shape, options.dtype);
  plan.shards = SplitIntoShards(DemoTensors(shape), options.shards);
  if (options.shards > 1) plan.texts.push_back(DemoIndex(plan.shards, options.dtype));
  for (const DemoText& text : plan.texts) plan.bytes += Bytes(text.text.size());
  for (const DemoShard& shard : plan.shards) {
    plan.bytes += Bytes(DemoWeightHeader(shard, options.dtype).size());
    plan.bytes += Bytes(DemoDataBytes(shard, options.dtype));
  }
  return plan;
}

// Where the models go, the base first.
std::vector<StagingPaths> ModelPaths(const DemoOptions& options) {
  std::vector<StagingPaths> paths;
  const auto add = [&](const std::string& name) {
    paths.push_back(StagingPaths::For(JoinPath(options.directory, name), "demo"));
  };
  add("base");
  for (uint32_t expert = 1; expert <= options.experts; ++expert) {
    add(fmt::format("expert_{}", expert));
  }
  return paths;
}

Status CheckAbsent(FileSystem& files, const std::vector<StagingPaths>& paths) {
  ProblemList problems;
  for (const StagingPaths& model : paths) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files.Exists(model.target));
    if (there) problems.Add(model.target, "exists", "choose another directory");
  }
  return problems.ToStatus(ErrorKind::kUsage);
}

Status CheckSpace(FileSystem& files, const std::string& directory, Bytes needed) {
  std::string existing = AbsolutePath(directory);
  while (true) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files.Exists(existing));
    if (there || existing == "/") break;
    existing = ParentPath(existing);
  }
  MERGEPIPE_ASSIGN_OR_RETURN(const uint64_t free, files.FreeSpace(existing));
  if (needed <= Bytes(free)) return {};
  return Fail(
      ErrorKind::kNoSpace, directory,
      fmt::format("the models need {}, {} are free", FormatBytes(needed), FormatBytes(Bytes(free))),
      "choose another directory, a smaller --size or fewer --experts");
}

Status WriteModel(FileSystem& files, const std::string& directory, const ModelFiles& plan,
                  const DemoWeights& weights) {
  MERGEPIPE_RETURN_IF_ERROR(files.CreateDirectories(directory));
  for (const DemoText& text : plan.texts) {
    MERGEPIPE_RETURN_IF_ERROR(WriteNewFile(files, JoinPath(directory, text.name), text.text));
  }
  for (const DemoShard& shard : plan.shards) {
    MERGEPIPE_RETURN_IF_ERROR(WriteDemoWeights(files, directory, shard, weights));
  }
  return {};
}

// Removes what a demo that fails has made.
class Leftovers {
 public:
  explicit Leftovers(FileSystem& files) : files_(files) {}
  Leftovers(const Leftovers&) = delete;
  Leftovers& operator=(const Leftovers&) = delete;
  ~Leftovers() {
    // The failure that brought us here is the one to report.
    for (const std::string& path : paths_) (void)files_.Remove(path);
  }
  void Add(std::string path) { paths_.push_back(std::move(path)); }
  void Keep() { paths_.clear(); }

 private:
  FileSystem& files_;
  std::vector<std::string> paths_;
};

// All models are written before the first one gets its name: a demo that fails can be repeated as
// it is. The lock is held, so a staging directory that is there was left by one that was killed.
Status WriteFamily(FileSystem& files, const std::vector<StagingPaths>& paths,
                   const ModelFiles& plan, DemoWeights weights) {
  Leftovers leftovers(files);
  for (const StagingPaths& model : paths) {
    MERGEPIPE_RETURN_IF_ERROR(files.Remove(model.staging));
    leftovers.Add(model.staging);
    MERGEPIPE_RETURN_IF_ERROR(WriteModel(files, model.staging, plan, weights));
    ++weights.model;
  }
  for (const StagingPaths& model : paths) {
    MERGEPIPE_RETURN_IF_ERROR(PublishDirectory(files, model, {}, /*overwrite=*/false));
    leftovers.Add(model.target);
  }
  leftovers.Keep();
  return {};
}

}  // namespace

std::vector<DemoSize> DemoSizes() {
  std::vector<DemoSize> sizes;
  for (const DemoShape& row : DemoShapes()) {
    DemoSize& size = sizes.emplace_back(DemoSize{std::string(row.shape), std::string(row.size), 0});
    for (const DemoTensor& tensor : DemoTensors(row)) size.parameters += tensor.elements();
  }
  return sizes;
}

Result<DemoFamily> MakeDemoFamily(FileSystem& files, const DemoOptions& options) {
  MERGEPIPE_ASSIGN_OR_RETURN(const DemoShape shape, CheckOptions(options));
  const ModelFiles plan = PlanFiles(shape, options);
  const Bytes needed(CheckedMultiply(plan.bytes.count(), uint64_t{options.experts} + 1)
                         .value_or(Bytes::Unlimited().count()));
  const std::vector<StagingPaths> paths = ModelPaths(options);
  MERGEPIPE_RETURN_IF_ERROR(CheckAbsent(files, paths));
  MERGEPIPE_RETURN_IF_ERROR(CheckSpace(files, options.directory, needed));

  MERGEPIPE_RETURN_IF_ERROR(files.CreateDirectories(options.directory));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto lock, files.Lock(paths.front().lock));
  MERGEPIPE_RETURN_IF_ERROR(
      WriteFamily(files, paths, plan, {0, shape.layers, options.dtype, options.seed}));

  DemoFamily family;
  family.base = JoinPath(options.directory, "base");
  for (size_t i = 1; i < paths.size(); ++i) {
    family.experts.push_back(JoinPath(options.directory, BaseName(paths[i].target)));
  }
  family.bytes_written = needed;
  return family;
}

}  // namespace mergepipe
