#include "mergepipe/manifest/manifest_codec.h"

#include "mergepipe/plan/plan_codec.h"
#include "mergepipe/plan/record_json.h"

namespace mergepipe {
namespace {

using record::Json;
using record::Require;

constexpr record::Kind kManifest = {"manifest", "manifest_hash", nullptr};

Json NonFiniteToJson(const NonFiniteCount& count) { return Json::array({count.nan, count.inf}); }

Json TensorToJson(const ManifestTensor& tensor) {
  Json experts = Json::array();
  for (const ManifestSource& source : tensor.sources) {
    experts.push_back({{"expert", source.expert},
                       {"blocks", source.blocks.ToText()},
                       {"read_hash", source.read_hash.ToHex()},
                       {"nonfinite", NonFiniteToJson(source.nonfinite)},
                       {"differs", source.differs}});
  }
  return {
      {"name", tensor.name},
      {"dtype", DTypeName(tensor.dtype)},
      {"shape", tensor.shape},
      {"rule", record::ToJson(tensor.rule)},
      {"reason", tensor.reason},
      {"file", tensor.file},
      {"blocks", tensor.blocks},
      {"touched_blocks", tensor.touched_blocks},
      {"hash", tensor.hash.ToHex()},
      {"base_hash", tensor.base_hash.ToHex()},
      {"nonfinite",
       {{"base", NonFiniteToJson(tensor.base_nonfinite)},
        {"made", NonFiniteToJson(tensor.made_nonfinite)}}},
      {"experts", std::move(experts)},
  };
}

Json FilesToJson(const std::vector<ManifestFile>& files) {
  Json json = Json::array();
  for (const ManifestFile& file : files) {
    json.push_back({{"name", file.name}, {"size", file.size}, {"hash", file.hash.ToHex()}});
  }
  return json;
}

Json IoToJson(const IoCounts& io) {
  return {{"probe_bytes_read", io.probe_bytes_read},
          {"expert_bytes_read", io.expert_bytes_read},
          {"base_bytes_read", io.base_bytes_read},
          {"output_bytes_written", io.output_bytes_written},
          {"copied_bytes", io.copied_bytes}};
}

Json AllIoToJson(const Manifest& manifest) {
  Json by_rank = Json::array();
  for (const RankIo& rank : manifest.by_rank) {
    Json json = IoToJson(rank.io);
    json["rank"] = rank.rank;
    json["host"] = rank.host;
    by_rank.push_back(std::move(json));
  }
  Json io = IoToJson(manifest.io);
  io["budget_bytes"] = manifest.budget_bytes ? Json(*manifest.budget_bytes) : Json();
  io["planned_expert_bytes"] = manifest.planned_expert_bytes;
  io["resumed_expert_bytes"] = manifest.resumed_expert_bytes;
  io["reread_bytes"] = manifest.reread_bytes;
  io["by_rank"] = std::move(by_rank);
  return io;
}

Json BoundToJson(const std::optional<ErrorBound>& bound) {
  if (!bound) return {};
  return {{"unread", bound->unread}, {"rounding", bound->rounding}, {"total", bound->total}};
}

Json ManifestToJson(const Manifest& manifest) {
  Json tensors = Json::array();
  for (const ManifestTensor& tensor : manifest.tensors) tensors.push_back(TensorToJson(tensor));
  Json left_out = Json::array();
  for (const LeftOutFile& file : manifest.left_out)
    left_out.push_back({{"name", file.path}, {"reason", file.reason}});
  return {
      {"run_id", manifest.run_id},
      {"model_id", manifest.model_id},
      {"plan_id", PlanIdOf(manifest.plan_hash)},
      {"plan_hash", manifest.plan_hash},
      {"output", manifest.output == OutputForm::kSparse ? "sparse" : "full"},
      {"block_size", manifest.block_size},
      {"base", record::ToJson(manifest.base)},
      {"experts", record::ToJson(manifest.experts)},
      {"tensors", std::move(tensors)},
      {"dropped", record::ToJson(manifest.dropped)},
      {"files", FilesToJson(manifest.files)},
      {"side_files", FilesToJson(manifest.side_files)},
      {"left_out", std::move(left_out)},
      {"bound", BoundToJson(manifest.bound)},
      {"io", AllIoToJson(manifest)},
  };
}

uint64_t Unsigned(const Json& value) { return record::Unsigned(value, "a number"); }

NonFiniteCount ReadNonFinite(const Json& json) {
  return {Unsigned(json.at(0)), Unsigned(json.at(1))};
}

// The text is data from elsewhere: a name must not lead out of the directory.
std::string ReadName(const Json& json) {
  const std::string& name = json.get_ref<const std::string&>();
  const std::string slashed = "/" + name + "/";
  const bool plain = !name.empty() && name.front() != '/' && name.find('\0') == std::string::npos &&
                     slashed.find("/../") == std::string::npos &&
                     slashed.find("/./") == std::string::npos &&
                     slashed.find("//") == std::string::npos;
  Require(plain, "a file name leads out of the directory");
  return name;
}

std::vector<ManifestFile> ReadFiles(const Json& json) {
  std::vector<ManifestFile> files;
  for (const Json& file : record::Array(json)) {
    files.push_back(
        {ReadName(file.at("name")), Unsigned(file.at("size")), record::Hash(file.at("hash"))});
    Require(files.back().name != kManifestName, "the manifest lists itself");
  }
  return files;
}

ManifestSource ReadTensorSource(const Json& json, uint64_t blocks, size_t experts) {
  const uint64_t expert = Unsigned(json.at("expert"));
  Require(expert < experts, "a tensor names an expert that is not there");
  auto set = BlockSet::FromText(json.at("blocks").get_ref<const std::string&>(), blocks);
  Require(set.has_value(), "a set of blocks is malformed");
  return {static_cast<uint32_t>(expert), std::move(*set), record::Hash(json.at("read_hash")),
          ReadNonFinite(json.at("nonfinite")), json.at("differs").get<bool>()};
}

// `manifest` has what stands before the tensors.
ManifestTensor ReadTensor(const Json& json, const Manifest& manifest, uint64_t& pairs) {
  ManifestTensor tensor;
  tensor.name = json.at("name").get<std::string>();
  tensor.dtype = record::Type(json.at("dtype"));
  tensor.shape = record::Shape(json.at("shape"));
  tensor.rule = record::Rule(json.at("rule"));
  tensor.reason = json.at("reason").get<std::string>();
  tensor.blocks = Unsigned(json.at("blocks"));
  record::CountPairs(tensor.blocks, manifest.experts.size(), pairs);
  Require(tensor.blocks == CeilDivide(*CheckedProduct(tensor.shape), manifest.block_size),
          "a number of blocks is wrong");
  tensor.touched_blocks = Unsigned(json.at("touched_blocks"));
  const bool has_file = manifest.output == OutputForm::kFull || tensor.touched_blocks > 0;
  if (has_file) tensor.file = ReadName(json.at("file"));
  Require(has_file || json.at("file").get_ref<const std::string&>().empty(),
          "an untouched tensor of a sparse output has a file");
  tensor.hash = record::Hash(json.at("hash"));
  tensor.base_hash = record::Hash(json.at("base_hash"));
  tensor.base_nonfinite = ReadNonFinite(json.at("nonfinite").at("base"));
  tensor.made_nonfinite = ReadNonFinite(json.at("nonfinite").at("made"));
  for (const Json& source : record::Array(json.at("experts"))) {
    Require(tensor.sources.size() < manifest.experts.size(), "a tensor has too many experts");
    tensor.sources.push_back(ReadTensorSource(source, tensor.blocks, manifest.experts.size()));
    const size_t last = tensor.sources.size() - 1;
    Require(last == 0 || tensor.sources[last - 1].expert < tensor.sources[last].expert,
            "a tensor's experts are not in their order");
  }
  Require(tensor.touched_blocks == tensor.Touched().Count(), "touched_blocks is wrong");
  return tensor;
}

IoCounts ReadIo(const Json& json) {
  return {Unsigned(json.at("probe_bytes_read")), Unsigned(json.at("expert_bytes_read")),
          Unsigned(json.at("base_bytes_read")), Unsigned(json.at("output_bytes_written")),
          Unsigned(json.at("copied_bytes"))};
}

int ReadRank(const Json& json) {
  const auto rank = Narrow<int>(Unsigned(json));
  Require(rank.has_value(), "a rank is too large");
  return *rank;
}

void ReadAllIo(const Json& json, Manifest& manifest) {
  manifest.io = ReadIo(json);
  if (!json.at("budget_bytes").is_null()) manifest.budget_bytes = Unsigned(json.at("budget_bytes"));
  manifest.planned_expert_bytes = Unsigned(json.at("planned_expert_bytes"));
  // Records of before there was a journal have neither.
  if (json.contains("resumed_expert_bytes"))
    manifest.resumed_expert_bytes = Unsigned(json.at("resumed_expert_bytes"));
  if (json.contains("reread_bytes")) manifest.reread_bytes = Unsigned(json.at("reread_bytes"));
  for (const Json& rank : record::Array(json.at("by_rank"))) {
    manifest.by_rank.push_back(
        {ReadRank(rank.at("rank")), rank.at("host").get<std::string>(), ReadIo(rank)});
  }
}

std::optional<ErrorBound> ReadBound(const Json& json) {
  if (json.is_null()) return std::nullopt;
  return ErrorBound{record::Finite(json.at("unread"), "a bound"),
                    record::Finite(json.at("rounding"), "a bound"),
                    record::Finite(json.at("total"), "a bound")};
}

Manifest ReadManifest(const Json& json) {
  Manifest manifest;
  manifest.run_id = ReadName(json.at("run_id"));  // it becomes a part of a path
  Require(manifest.run_id.find('/') == std::string::npos, "run_id is not a plain name");
  manifest.model_id = json.at("model_id").get<std::string>();
  manifest.plan_hash = record::HexHash(json.at("plan_hash"));
  Require(json.at("plan_id") == PlanIdOf(manifest.plan_hash), "plan_id is not that of plan_hash");
  if (record::Choice(json.at("output"), "sparse", "full")) manifest.output = OutputForm::kSparse;
  manifest.block_size = Unsigned(json.at("block_size"));
  Require(manifest.block_size > 0 && manifest.block_size <= kMaxBlockSize,
          "block_size is out of range");
  manifest.base = record::Model(json.at("base"));
  manifest.experts = record::Models(json.at("experts"));
  uint64_t pairs = 0;
  for (const Json& tensor : record::Array(json.at("tensors"))) {
    manifest.tensors.push_back(ReadTensor(tensor, manifest, pairs));
  }
  manifest.dropped = record::Dropped(json.at("dropped"), manifest.experts.size());
  manifest.files = ReadFiles(json.at("files"));
  manifest.side_files = ReadFiles(json.at("side_files"));
  for (const Json& file : record::Array(json.at("left_out"))) {
    manifest.left_out.push_back(
        {file.at("name").get<std::string>(), file.at("reason").get<std::string>()});
  }
  manifest.bound = ReadBound(json.at("bound"));
  ReadAllIo(json.at("io"), manifest);
  return manifest;
}

}  // namespace

std::string ManifestHash(const Manifest& manifest) {
  return record::HashOf(kManifest, ManifestToJson(manifest));
}

std::string SerializeManifest(const Manifest& manifest) {
  return record::ToText(kManifest, ManifestToJson(manifest));
}

bool LooksLikeManifest(const std::string& text) {
  return text.find("\"mergepipe.manifest/") != std::string::npos;
}

Result<Manifest> ParseManifest(const std::string& text, const std::string& subject) {
  Manifest manifest;
  MERGEPIPE_RETURN_IF_ERROR(record::ReadRecord(
      kManifest, text, subject, [&](const Json& json) { manifest = ReadManifest(json); }));
  return manifest;
}

}  // namespace mergepipe
