#include "mergepipe/manifest/manifest_codec.h"

#include <gtest/gtest.h>

#include <random>

#include "mergepipe/plan/record_json.h"

namespace mergepipe {
namespace {

using record::Json;

constexpr record::Kind kManifest = {"manifest", "manifest_hash", nullptr};

class Draw {
 public:
  explicit Draw(uint64_t seed) : random_(seed) {}
  uint64_t Below(uint64_t n) { return random_() % n; }
  bool Coin() { return random_() % 2 == 0; }
  uint64_t Number() { return random_() >> Below(64); }
  double Real() { return static_cast<double>(Number()) / 3; }
  Hash128 Hash() { return {random_(), random_()}; }
  NonFiniteCount Count() { return {Number(), Number()}; }
  std::string Text() {
    static const std::vector<std::string> kTexts = {
        "a", "", "two words", "\"quoted\\", "line\nbreak", "\xc3\xa4\xf0\x9f\x98\x80"};
    return kTexts[Below(kTexts.size())] + std::to_string(Below(100));
  }
  std::string Name() {
    static const std::vector<std::string> kNames = {
        "model.safetensors", "a/b", ".hidden", "..a", "a..", "a/..b", "sp ace", "\xc3\xa4"};
    return kNames[Below(kNames.size())];
  }
  PlannedModel Model() { return {Text(), Hash()}; }
  IoCounts Io() { return {Number(), Number(), Number(), Number(), Number()}; }
  std::vector<ManifestFile> Files() {
    std::vector<ManifestFile> files;
    for (uint64_t i = Below(3); i > 0; --i) files.push_back({Name(), Number(), Hash()});
    return files;
  }

 private:
  std::mt19937_64 random_;
};

ManifestTensor RandomTensor(Draw& draw, OutputForm form, uint64_t block_size, size_t experts) {
  ManifestTensor tensor;
  tensor.name = draw.Text();
  tensor.dtype = static_cast<DType>(draw.Below(13));
  uint64_t elements = 1;
  for (uint64_t rank = draw.Below(4); rank > 0; --rank) {
    tensor.shape.push_back(draw.Below(40));
    elements *= tensor.shape.back();
  }
  tensor.rule = draw.Coin() ? TensorRule::kMerge : TensorRule::kBase;
  tensor.reason = draw.Text();
  tensor.blocks = (elements + block_size - 1) / block_size;
  tensor.hash = draw.Hash();
  tensor.base_hash = draw.Hash();
  tensor.base_nonfinite = draw.Count();
  tensor.made_nonfinite = draw.Count();
  for (uint32_t k = 0; k < experts; ++k) {
    if (draw.Coin()) continue;
    BlockSet blocks(tensor.blocks);
    for (uint64_t b = 0; b < tensor.blocks; ++b) {
      if (draw.Coin()) blocks.Add(BlockIndex(b));
    }
    tensor.sources.push_back({k, blocks, draw.Hash(), draw.Count(), draw.Coin()});
  }
  tensor.touched_blocks = tensor.Touched().Count();
  if (form == OutputForm::kFull || tensor.touched_blocks > 0) tensor.file = draw.Name();
  return tensor;
}

Manifest RandomManifest(uint64_t seed) {
  Draw draw(seed);
  Manifest manifest;
  manifest.run_id = draw.Text();
  manifest.model_id = draw.Text();
  manifest.plan_hash = Sha256Hex(draw.Text());
  manifest.output = draw.Coin() ? OutputForm::kSparse : OutputForm::kFull;
  manifest.block_size = 1 + draw.Below(50);
  manifest.base = draw.Model();
  for (uint64_t k = 1 + draw.Below(4); k > 0; --k) manifest.experts.push_back(draw.Model());
  const size_t experts = manifest.experts.size();
  for (uint64_t t = draw.Below(4); t > 0; --t)
    manifest.tensors.push_back(RandomTensor(draw, manifest.output, manifest.block_size, experts));
  for (uint64_t i = draw.Below(3); i > 0; --i) {
    manifest.dropped.push_back(
        {static_cast<uint32_t>(draw.Below(experts)), draw.Text(), draw.Text()});
  }
  manifest.files = draw.Files();
  manifest.side_files = draw.Files();
  for (uint64_t i = draw.Below(3); i > 0; --i)
    manifest.left_out.push_back({draw.Text(), draw.Text()});
  if (draw.Coin()) manifest.budget_bytes = draw.Number();
  manifest.planned_expert_bytes = draw.Number();
  if (draw.Coin()) manifest.bound = {draw.Real(), draw.Real(), draw.Real()};
  manifest.io = draw.Io();
  for (int rank = static_cast<int>(draw.Below(4)); rank > 0; --rank)
    manifest.by_rank.push_back({rank, draw.Text(), draw.Io()});
  return manifest;
}

// With at least one tensor, source, file of each kind and rank.
Manifest FullManifest() {
  for (uint64_t seed = 0;; ++seed) {
    Manifest manifest = RandomManifest(seed);
    const bool full = !manifest.tensors.empty() && !manifest.tensors[0].sources.empty() &&
                      !manifest.files.empty() && !manifest.side_files.empty() &&
                      !manifest.by_rank.empty() && !manifest.dropped.empty() && manifest.bound &&
                      manifest.output == OutputForm::kFull;
    if (full) return manifest;
  }
}

TEST(ManifestCodec, RoundTripsRandomManifests) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const Manifest manifest = RandomManifest(seed);
    const std::string text = SerializeManifest(manifest);
    const auto parsed = ParseManifest(text, "manifest.json");
    ASSERT_TRUE(parsed.has_value()) << parsed.error().ToString() << "\n" << text;
    ASSERT_EQ(*parsed, manifest);
    ASSERT_EQ(SerializeManifest(*parsed), text);
    ASSERT_EQ(Json::parse(text).at("manifest_hash"), ManifestHash(manifest));
  }
}

TEST(ManifestCodec, RefusesEveryFlippedBitAndTruncation) {
  std::string text = SerializeManifest(FullManifest());
  for (size_t i = 0; i < text.size(); ++i) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      const char before = text[i];
      text[i] = static_cast<char>(before ^ (1 << bit));
      const auto flipped = ParseManifest(text, "manifest.json");
      ASSERT_FALSE(flipped.has_value()) << "byte " << i << " bit " << bit;
      ASSERT_EQ(flipped.error().kind(), ErrorKind::kVerification);
      text[i] = before;
    }
    ASSERT_FALSE(ParseManifest(text.substr(0, i), "manifest.json").has_value());
  }
  EXPECT_TRUE(ParseManifest(text, "manifest.json").has_value());
}

// A manifest with one value replaced, and its hash made right.
Result<Manifest> ParseWith(const std::string& pointer, const Json& value) {
  Json json = Json::parse(SerializeManifest(FullManifest()));
  json.at(Json::json_pointer(pointer)) = value;
  return ParseManifest(record::ToText(kManifest, json), "manifest.json");
}

TEST(ManifestCodec, RefusesNamesThatLeadOutOfTheDirectory) {
  using std::string_literals::operator""s;
  for (const char* place : {"/files/0/name", "/side_files/0/name", "/tensors/0/file"}) {
    ASSERT_TRUE(ParseWith(place, "a/b.json").has_value());
    for (const std::string& name : {"../x"s, ".."s, "a/../x"s, "a/.."s, "/etc"s, "/"s, "a//b"s,
                                    "a/"s, "."s, "./a"s, "a/./b"s, "a/."s, ""s, "a\0b"s}) {
      const auto manifest = ParseWith(place, name);
      ASSERT_FALSE(manifest.has_value()) << place << " = " << name;
      EXPECT_EQ(manifest.error().kind(), ErrorKind::kBadInput);
      EXPECT_NE(manifest.error().ToString().find("leads out of the directory"), std::string::npos);
    }
  }
}

TEST(ManifestCodec, RefusesWhatDoesNotHoldTogether) {
  const std::vector<std::pair<const char*, Json>> changes = {
      {"/plan_id", "0123456789abcdef"},
      {"/block_size", 0},
      {"/block_size", kMaxBlockSize + 1},
      {"/block_size", 1.5},
      {"/output", "thin"},
      {"/output", 1},
      {"/bound", 1},
      {"/bound/total", "large"},
      {"/tensors/0/blocks", 999},
      {"/tensors/0/touched_blocks", 999},
      {"/tensors/0/shape", Json::array({uint64_t{1} << 63, 2})},
      {"/tensors/0/shape", -1},
      {"/tensors/0/dtype", "F8"},
      {"/tensors/0/rule", 1},
      {"/tensors/0/hash", "12"},
      {"/dropped/0/expert", 99},
      {"/tensors/0/experts/0/expert", 99},
      {"/tensors/0/experts/0/blocks", "0-999999"},
      {"/tensors/0/experts/0/nonfinite", Json::array({1})},
      {"/io/budget_bytes", "all"},
      {"/io/by_rank/0/host", 1},
      {"/io/expert_bytes_read", -1},
      {"/files/0/size", -1},
      {"/files/0/hash", nullptr},
      {"/base", nullptr}};
  for (const auto& [pointer, value] : changes) {
    const auto manifest = ParseWith(pointer, value);
    ASSERT_FALSE(manifest.has_value()) << pointer << " = " << value;
    EXPECT_EQ(manifest.error().kind(), ErrorKind::kBadInput);
  }
}

TEST(ManifestCodec, OnlyWhatASparseOutputHasNothingOfIsWithoutAFile) {
  Manifest manifest = FullManifest();
  manifest.output = OutputForm::kSparse;
  ManifestTensor& tensor = manifest.tensors[0];
  tensor.sources = {{0, BlockSet(tensor.blocks), {}, {}, false}};
  tensor.touched_blocks = 0;
  tensor.file = "";
  for (ManifestTensor& other : manifest.tensors) {
    if (other.touched_blocks == 0) other.file = "";
  }
  EXPECT_TRUE(ParseManifest(SerializeManifest(manifest), "manifest.json").has_value());
  tensor.file = "model.safetensors";
  EXPECT_FALSE(ParseManifest(SerializeManifest(manifest), "manifest.json").has_value());
  tensor.file = "";
  manifest.output = OutputForm::kFull;
  EXPECT_FALSE(ParseManifest(SerializeManifest(manifest), "manifest.json").has_value());
}

TEST(ManifestCodec, IgnoresUnknownFieldsAndRefusesOtherRecords) {
  Json json = Json::parse(SerializeManifest(FullManifest()));
  json["future"] = Json::array({1, "two"});
  json["io"]["future"] = nullptr;
  EXPECT_EQ(ParseManifest(record::ToText(kManifest, json), "manifest.json"), FullManifest());
  const record::Kind plan = {"plan", "plan_hash", "plan_id"};
  const auto other = ParseManifest(record::ToText(plan, json), "manifest.json");
  ASSERT_FALSE(other.has_value());
  EXPECT_NE(other.error().ToString().find("is not a manifest"), std::string::npos);
}

TEST(ManifestCodec, RefusesMorePairsThanItCanHold) {
  Json json = Json::parse(SerializeManifest(FullManifest()));
  const size_t experts = json["experts"].size();
  json["block_size"] = 1;
  Json tensor = json["tensors"][0];
  tensor["shape"] = {kMaxBlocks / experts};
  tensor["blocks"] = kMaxBlocks / experts;
  tensor["touched_blocks"] = 0;
  for (Json& source : tensor["experts"]) source["blocks"] = "";
  json["tensors"] = {tensor};
  EXPECT_TRUE(ParseManifest(record::ToText(kManifest, json), "manifest.json").has_value());
  json["tensors"].push_back(tensor);
  const auto manifest = ParseManifest(record::ToText(kManifest, json), "manifest.json");
  ASSERT_FALSE(manifest.has_value());
  EXPECT_EQ(manifest.error().kind(), ErrorKind::kBadInput);
  EXPECT_NE(manifest.error().ToString().find("too many blocks"), std::string::npos);
}

TEST(ManifestCodec, NamesEachExpertOfATensorOnce) {
  Json json = Json::parse(SerializeManifest(FullManifest()));
  Json& sources = json["tensors"][0]["experts"];
  sources.push_back(sources[0]);
  EXPECT_FALSE(ParseManifest(record::ToText(kManifest, json), "manifest.json").has_value());
}

TEST(ManifestCodec, RefusesOtherHashesRanksAndItself) {
  for (const auto& [pointer, value] :
       std::vector<std::pair<const char*, Json>>{{"/io/by_rank/0/rank", 1e308},
                                                 {"/io/by_rank/0/rank", uint64_t{1} << 31},
                                                 {"/io/by_rank/0/rank", -1},
                                                 {"/plan_hash", std::string(64, 'G')},
                                                 {"/files/0/name", "manifest.json"},
                                                 {"/side_files/0/name", "manifest.json"}}) {
    const auto manifest = ParseWith(pointer, value);
    ASSERT_FALSE(manifest.has_value()) << pointer << " = " << value;
    EXPECT_EQ(manifest.error().kind(), ErrorKind::kBadInput);
  }
}

}  // namespace
}  // namespace mergepipe
