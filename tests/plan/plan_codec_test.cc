#include "mergepipe/plan/plan_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <span>

#include "mergepipe/plan/record_json.h"
#include "plan/plan_fixture.h"

namespace mergepipe {
namespace {

using namespace test;
using record::Json;

constexpr record::Kind kPlan = {"plan", "plan_hash", "plan_id"};

std::string RandomName(std::mt19937_64& random) {
  static const std::vector<std::string> kNames = {
      "a", "model.layers.0.q", "", "quote\"\\/", "tab\t", "\xc3\xa4\xf0\x9f\x98\x80", "x:"};
  return kNames[random() % kNames.size()] + std::to_string(random() % 100);
}

Hash128 RandomHash(std::mt19937_64& random) { return {random(), random()}; }

// A plan that holds together, but that no planner made.
Plan RandomPlan(std::mt19937_64& random) {
  const auto below = [&](uint64_t n) { return random() % n; };
  const auto coin = [&] { return random() % 2 == 0; };
  constexpr DType kFloats[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16};
  const auto real = [&] {
    return std::ldexp(static_cast<double>(random()), static_cast<int>(below(200)) - 130);
  };
  Plan plan;
  PlanOptions& options = plan.options;
  const size_t experts = 1 + below(4);
  options.strategy = {RandomName(random), real(), {}, -real(), random(), coin(), coin()};
  for (size_t k = 0; k < experts; ++k) options.strategy.weights.push_back(real());
  options.scoring = RandomName(random);
  options.top_p = static_cast<double>(1 + below(1000)) / 1000;
  options.block_size = coin() ? 1 + below(100) : kMaxBlockSize;
  if (coin()) options.out_dtype = kFloats[below(4)];
  options.resident_bytes = random();
  options.allow_nonfinite = coin();
  if (coin()) options.missing = MismatchPolicy::kBase;
  if (coin()) options.extra = MismatchPolicy::kDrop;
  plan.base = {RandomName(random), RandomHash(random)};
  for (size_t k = 0; k < experts; ++k)
    plan.experts.push_back({RandomName(random), RandomHash(random)});
  for (uint64_t t = below(6); t > 0; --t) {
    PlannedTensor tensor;
    tensor.name = RandomName(random);
    tensor.rule = below(4) == 0 ? TensorRule::kBase : TensorRule::kMerge;
    const bool merge = tensor.rule == TensorRule::kMerge;
    tensor.dtype = merge ? kFloats[below(4)] : DType::kI64;
    tensor.out_dtype = merge ? kFloats[below(4)] : DType::kI64;
    for (uint64_t rank = below(4); rank > 0; --rank) tensor.shape.push_back(below(30));
    tensor.reason = RandomName(random);
    tensor.reads = static_cast<uint32_t>(1 + below(3));
    tensor.compare = !merge && coin();
    for (size_t k = 0; k < experts; ++k) {
      BlockSet selected(tensor.Blocks(options.block_size));
      BlockSet equal = selected;
      const bool present = below(4) != 0;
      tensor.sources.push_back(
          present ? ExpertSource{true, RandomName(random), merge ? kFloats[below(4)] : DType::kI64}
                  : ExpertSource{});
      for (uint64_t b = 0; merge && present && b < selected.size(); ++b) {
        if (const uint64_t fate = below(3); fate < 2)
          (fate == 0 ? selected : equal).Add(BlockIndex(b));
      }
      tensor.selected.push_back(selected);
      tensor.equal.push_back(equal);
      tensor.energy.push_back(coin() ? std::optional(DeltaEnergy{real(), real()}) : std::nullopt);
    }
    tensor.blocks_beyond_top_p = random();
    tensor.best_left_score_per_byte = real();
    plan.merge_bytes += tensor.SelectedBytes(options.block_size) * tensor.reads;
    plan.tensors.push_back(tensor);
  }
  for (uint64_t i = below(3); i > 0; --i) {
    plan.dropped.push_back(
        {static_cast<uint32_t>(below(experts)), RandomName(random), RandomName(random)});
  }
  for (size_t k = 0; k < experts; ++k) {
    const auto kind = static_cast<StatisticsKind>(below(3));
    plan.statistics.push_back({kind, RandomHash(random)});
    if (kind == StatisticsKind::kProbe) plan.probe_stride = 1 + below(1000);
  }
  plan.fingerprint_bytes = random() >> 3;
  plan.probe_bytes = random() >> 3;
  plan.compare_bytes = random() >> 3;
  if (coin()) options.budget_bytes = plan.PlannedBytes() + below(1000);
  plan.objective = real();
  plan.objective_bound = real();
  plan.cutoff_score_per_byte = real();
  if (coin()) plan.bound = {real(), real(), real()};
  return plan;
}

// The plan of a small fixed family.
Plan FixedPlan() {
  Family family = MakeFamily(
      {{"embed", DType::kF32, {10, 3}}, {"ids", DType::kI64, {3}}, {"w", DType::kBF16, {7}}}, 2, 4);
  family.options.budget_bytes = 100'000;
  family.options.top_p = 0.5;
  family.options.strategy.density = 0.1;
  family.rounds = 2;
  Plan plan = *family.MakePlan();
  plan.tensors[0].energy[1] = DeltaEnergy{2.5, 0.5};
  plan.bound = ErrorBound{3, 0.25, 3.125};
  return plan;
}

ErrorKind KindOf(const Result<Plan>& plan) {
  EXPECT_FALSE(plan.has_value());
  return plan ? ErrorKind::kInternal : plan.error().kind();
}

TEST(PlanCodec, RoundTripsRandomPlans) {
  std::mt19937_64 random(6);
  for (int i = 0; i < 2000; ++i) {
    const Plan plan = RandomPlan(random);
    const std::string text = SerializePlan(plan);
    const auto parsed = ParsePlan(text, "plan.json");
    ASSERT_TRUE(parsed.has_value()) << parsed.error().ToString() << "\n" << text;
    ASSERT_EQ(*parsed, plan);
    ASSERT_EQ(SerializePlan(*parsed), text);
    ASSERT_EQ(PlanHash(*parsed), PlanHash(plan));
  }
}

TEST(PlanCodec, StatesTheHashOfTheCompactText) {
  const Plan plan = FixedPlan();
  Json json = Json::parse(SerializePlan(plan));
  EXPECT_EQ(json.at("plan_hash"), PlanHash(plan));
  EXPECT_EQ(json.at("plan_id"), PlanHash(plan).substr(0, 16));
  EXPECT_EQ(json.at("schema"), "mergepipe.plan/1");
  json.erase("plan_hash");
  json.erase("plan_id");
  EXPECT_EQ(Sha256Hex(json.dump()), PlanHash(plan));
  EXPECT_EQ(PlanIdOf(PlanHash(plan)).size(), 16u);
}

// Another hash here means: plans of earlier versions are not found again, and the schema needs a
// new number.
TEST(PlanCodec, TheHashOfAFixedPlanStays) {
  EXPECT_EQ(PlanHash(FixedPlan()),
            "8752d8fca3152f2804d3cb6122277c21cd25247cc8b25cb73d69604e87572d24")
      << SerializePlan(FixedPlan());
}

TEST(PlanCodec, RefusesEveryFlippedBit) {
  std::string text = SerializePlan(FixedPlan());
  for (size_t i = 0; i < text.size(); ++i) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      const char before = text[i];
      text[i] = static_cast<char>(before ^ (1 << bit));
      ASSERT_EQ(KindOf(ParsePlan(text, "plan.json")), ErrorKind::kVerification)
          << "byte " << i << " bit " << bit;
      text[i] = before;
    }
  }
  EXPECT_TRUE(ParsePlan(text, "plan.json").has_value());
}

TEST(PlanCodec, RefusesEveryTruncationAndAddition) {
  const std::string text = SerializePlan(FixedPlan());
  for (size_t length = 0; length < text.size(); ++length) {
    const auto plan = ParsePlan(text.substr(0, length), "dir/plan.json");
    ASSERT_EQ(KindOf(plan), ErrorKind::kVerification) << length;
    ASSERT_EQ(plan.error().problems().front().subject, "dir/plan.json");
  }
  for (const char* more : {" ", "\n", "{}", "x"}) {
    EXPECT_EQ(KindOf(ParsePlan(text + more, "plan.json")), ErrorKind::kVerification);
  }
}

TEST(PlanCodec, RefusesGarbage) {
  constexpr std::string_view kAlphabet = "{}[]\",:0e- \n\\u\xc3";
  std::mt19937_64 random(7);
  for (const char* text :
       {"", "null", "[]", "1", "\"mergepipe.plan/1\"", "{}", "{}\n", "{\"schema\": 1}",
        "{\"schema\": \"mergepipe.manifest/1\"}", "{\n \"schema\": \"mergepipe.plan/1\"\n}\n",
        "\xff\xfe", "{\"a\": 1e999}"}) {
    EXPECT_FALSE(ParsePlan(text, "plan.json").has_value()) << text;
  }
  for (int i = 0; i < 2000; ++i) {
    std::string text = "{";
    for (uint64_t n = random() % 64; n > 0; --n) text += kAlphabet[random() % kAlphabet.size()];
    ASSERT_FALSE(ParsePlan(text, "plan.json").has_value()) << text;
  }
}

TEST(PlanCodec, RefusesDeepNesting) {
  const size_t depth = 1'000'000;
  const std::string text = "{\"schema\": \"mergepipe.plan/1\", \"x\": " + std::string(depth, '[') +
                           std::string(depth, ']') + "}";
  EXPECT_FALSE(ParsePlan(text, "plan.json").has_value());
}

TEST(PlanCodec, IgnoresUnknownFields) {
  Json json = Json::parse(SerializePlan(FixedPlan()));
  json["future"] = {{"a", {1, 2, nullptr}}};
  json["options"]["future"] = "yes";
  json["tensors"][0]["future"] = 1.5;
  const auto plan = ParsePlan(record::ToText(kPlan, json), "plan.json");
  ASSERT_TRUE(plan.has_value()) << plan.error().ToString();
  EXPECT_EQ(*plan, FixedPlan());
}

TEST(PlanCodec, RefusesAnotherVersionAsInput) {
  for (const char* schema :
       {"mergepipe.plan/2", "mergepipe.plan/10", "mergepipe.plan/", "mergepipe.plan/1.5"}) {
    Json json = Json::parse(SerializePlan(FixedPlan()));
    json["schema"] = schema;
    json.erase("plan_hash");
    json.erase("plan_id");
    const std::string hash = Sha256Hex(json.dump());
    json["plan_hash"] = hash;
    json["plan_id"] = hash.substr(0, 16);
    const auto plan = ParsePlan(json.dump(1) + "\n", "plan.json");
    ASSERT_EQ(KindOf(plan), ErrorKind::kBadInput) << schema;
    EXPECT_TRUE(Says(plan.error().ToString(), schema));
    EXPECT_TRUE(Says(plan.error().ToString(), "mergepipe.plan/1"));
  }
}

// The fixed plan with one value replaced, and its hashes made right.
Result<Plan> ParseWith(const std::string& pointer, const Json& value) {
  Json json = Json::parse(SerializePlan(FixedPlan()));
  json.at(Json::json_pointer(pointer)) = value;
  return ParsePlan(record::ToText(kPlan, json), "plan.json");
}

struct Change {
  const char* pointer;
  Json value;
};

void ExpectRefused(std::span<const Change> changes) {
  for (const Change& change : changes) {
    const auto plan = ParseWith(change.pointer, change.value);
    ASSERT_FALSE(plan.has_value()) << change.pointer << " = " << change.value;
    EXPECT_EQ(plan.error().kind(), ErrorKind::kBadInput);
    EXPECT_TRUE(Says(plan.error().ToString(), "plan.json: is not a valid plan"));
  }
}

const uint64_t kHuge = uint64_t{1} << 63;
const Change kChanges[] = {
    {"/options/block_size", 0},
    {"/options/block_size", kMaxBlockSize + 1},
    {"/options/block_size", -1},
    {"/options/block_size", 4.0},
    {"/options/block_size", "4"},
    {"/options/block_size", 1e300},
    {"/options/top_p", 0},
    {"/options/top_p", 1.5},
    {"/options/top_p", nullptr},
    {"/options/density", "0.1"},
    {"/options/density", nullptr},
    {"/options/seed", -1},
    {"/options/seed", 1.5},
    {"/options/normalize", 1},
    {"/options/trim_scope", "row"},
    {"/options/nonfinite", "maybe"},
    {"/options/missing", "drop"},
    {"/options/extra", "base"},
    {"/options/out_dtype", "I64"},
    {"/options/out_dtype", "F8_E4M3"},
    {"/options/budget_bytes", "all"},
    {"/options/budget_bytes", -1},
    {"/options/weights", Json::array({1.0})},
    {"/options/weights", Json::array({1.0, "1"})},
    {"/options", nullptr},
    {"/base", nullptr},
    {"/base/fingerprint", "00"},
    {"/base/fingerprint", 5},
    {"/base/id", 5},
    {"/experts", Json::array()},
    {"/experts/0/fingerprint", "0123456789abcdef0123456789abcdeg"},
    {"/tensors/0", 5},
    {"/tensors/0/name", nullptr},
    {"/tensors/0/dtype", "F31"},
    {"/tensors/0/shape", Json::array({kHuge, 4})},
    {"/tensors/0/shape", Json::array({kHuge, kHuge})},
    {"/tensors/0/shape", Json::array({kHuge, 4, 0})},
    {"/tensors/0/shape", Json::array({kHuge / 32})},
    {"/tensors/0/shape", Json::array({-1})},
    {"/tensors/0/shape", Json::array({3.0})},
    {"/tensors/0/shape", Json::array({Json::array({3})})},
    {"/tensors/0/reads", 0},
    {"/tensors/0/reads", 17},
    {"/tensors/0/reads", uint64_t{1} << 32},
    {"/tensors/0/reads", (uint64_t{1} << 32) + 1},
    {"/tensors/0/compare", "no"},
    {"/tensors/0/rule", "average"},
    {"/tensors/0/selected", Json::array({""})},
    {"/tensors/0/selected", Json::array({"", "", ""})},
    {"/tensors/0/selected/0", "0-18446744073709551615"},
    {"/tensors/0/selected/0", "8"},
    {"/tensors/0/selected/0", "x:ffff"},
    {"/tensors/0/selected/0", 0},
    {"/tensors/0/sources", Json::array({nullptr})},
    {"/tensors/0/sources", Json::array({nullptr, nullptr})},
    {"/tensors/1/selected/0", "0"},
    {"/dropped", Json::array({{{"expert", 2}, {"name", "x"}, {"reason", "y"}}})},
    {"/dropped", Json::array({{{"expert", (uint64_t{1} << 32)}, {"name", "x"}, {"reason", "y"}}})},
    {"/planned/merge_bytes", -1},
    {"/planned/merge_bytes", 1e30},
    {"/objective", "much"},
    {"/objective", nullptr},
    {"/objective_bound", nullptr},
    {"/cutoff_score_per_byte", nullptr},
    {"/probe_stride", -1},
    {"/planned/probe_bytes", -1},
    {"/statistics", Json::array()},
    {"/statistics/0/kind", "exactly"},
    {"/statistics/0/kind", 1},
    {"/statistics/0/hash", "00"},
    {"/bound", 5},
    {"/bound", Json::array()},
    {"/bound", {{"unread", 1.0}, {"rounding", 1.0}}},
    {"/bound", {{"unread", 1.0}, {"rounding", 1.0}, {"total", nullptr}}},
    {"/tensors/0/equal", Json::array({""})},
    {"/tensors/0/equal/0", "8"},
    {"/tensors/0/energy", Json::array({nullptr})},
    {"/tensors/0/energy/0", Json::array({1.0})},
    {"/tensors/0/energy/0", Json::array({1.0, "1"})},
    {"/tensors/0/energy/0", 1.0},
    {"/tensors/0/blocks_beyond_top_p", -1},
    {"/tensors/0/best_left_score_per_byte", "1"},
    {"/tensors/1/equal/0", "0"},
};
TEST(PlanCodec, RefusesHostileValues) { ExpectRefused(kChanges); }

// nlohmann iterates over anything: null as nothing, a number as itself, an object as its values.
const Change kNotArrays[] = {
    {"/tensors", nullptr},
    {"/tensors", Json::object()},
    {"/dropped", nullptr},
    {"/dropped", Json::object()},
    {"/tensors/1/shape", 3},
    {"/tensors/1/shape", {{"a", 3}}},
    {"/options/weights", {{"a", 1.0}, {"b", 1.0}}},
    {"/tensors/1/selected", {{"a", ""}, {"b", ""}}},
    {"/tensors/1/equal", {{"a", ""}, {"b", ""}}},
    {"/tensors/1/energy", {{"a", nullptr}, {"b", nullptr}}},
    {"/statistics", nullptr},
};
TEST(PlanCodec, RefusesWhatIsNoArray) { ExpectRefused(kNotArrays); }

// Each value is possible, but not together with the others.
const Change kContradictions[] = {
    {"/planned/merge_bytes", 1},
    {"/tensors/0/dtype", "I64"},
    {"/tensors/0/sources/0/dtype", "I32"},
    {"/options/budget_bytes", 1},
    {"/tensors/0/equal/0", "0-7"},
    {"/statistics/0/kind", "probe"},
    {"/probe_stride", 1},
    {"/planned/probe_bytes", 100'000},
};
TEST(PlanCodec, RefusesContradictions) { ExpectRefused(kContradictions); }

TEST(PlanCodec, RefusesMissingFields) {
  const Json whole = Json::parse(SerializePlan(FixedPlan()));
  for (const char* parent : {"", "/base", "/experts/0", "/options", "/tensors/0",
                             "/tensors/0/sources/0", "/planned", "/statistics/0", "/bound"}) {
    const Json at = whole.at(Json::json_pointer(parent));
    for (const auto& [key, value] : at.items()) {
      // Written for people and recomputed from the rest, or filled in by ToText.
      if (key == "touched_blocks" || key == "total_bytes" || key == "objective_ratio" ||
          key == "schema" || key == "plan_hash" || key == "plan_id")
        continue;
      Json json = whole;
      json.at(Json::json_pointer(parent)).erase(key);
      EXPECT_EQ(KindOf(ParsePlan(record::ToText(kPlan, json), "plan.json")), ErrorKind::kBadInput)
          << parent << "/" << key;
    }
  }
}

// Each of its tensors is some bytes of text, and asks for two bits a block of each expert.
TEST(PlanCodec, RefusesMorePairsThanItCanHold) {
  Json json = Json::parse(SerializePlan(FixedPlan()));
  json["options"]["block_size"] = 1;
  json["planned"]["merge_bytes"] = 0;
  Json tensor = json["tensors"][0];
  const size_t experts = tensor["selected"].size();
  for (const char* sets : {"selected", "equal"}) tensor[sets] = std::vector<std::string>(experts);
  tensor["shape"] = {kMaxBlocks / experts / 4};
  json["tensors"] = std::vector<Json>(4, tensor);
  EXPECT_TRUE(ParsePlan(record::ToText(kPlan, json), "plan.json").has_value());
  json["tensors"].push_back(tensor);
  const auto plan = ParsePlan(record::ToText(kPlan, json), "plan.json");
  ASSERT_EQ(KindOf(plan), ErrorKind::kBadInput);
  EXPECT_TRUE(Says(plan.error().ToString(), "too many blocks"));
}

TEST(PlanCodec, RefusesShapesOfTooManyDimensions) {
  EXPECT_EQ(KindOf(ParseWith("/tensors/0/shape", std::vector<uint64_t>(65, 1))),
            ErrorKind::kBadInput);
}

// A tree takes many bytes for a value: there must be a line of text for it.
TEST(PlanCodec, RefusesTextThatIsNotCanonicalBeforeItMakesATree) {
  const auto plan = ParsePlan(Json::parse(SerializePlan(FixedPlan())).dump(), "plan.json");
  ASSERT_EQ(KindOf(plan), ErrorKind::kVerification);
  EXPECT_TRUE(Says(plan.error().ToString(), "canonical"));
}

}  // namespace
}  // namespace mergepipe
