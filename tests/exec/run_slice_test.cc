#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "exec/exec_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

// --- A merge by the definition (README, "Merging"), element by element. ---

struct Inputs {
  TestModel base;
  std::vector<TestModel> experts;
};

// One tensor of a merge: deltas of the elements whose block is selected.
class ReferenceTensor {
 public:
  ReferenceTensor(const Inputs& inputs, const Plan& plan, size_t t)
      : inputs_(inputs), plan_(plan), t_(t) {}

  std::string Bytes() const {
    const TestTensor& base = inputs_.base[t_];
    const PlannedTensor& planned = plan_.tensors[t_];
    if (planned.rule == TensorRule::kBase) return base.bytes;
    std::string out;
    for (uint64_t i = 0; i < base.elements(); ++i) {
      const float merged = Merged(i);
      const bool keeps = merged == 0 && planned.out_dtype == base.dtype;
      out += keeps ? base.bytes.substr(i * DTypeSize(base.dtype), DTypeSize(base.dtype))
                   : Encode(planned.out_dtype, base.At(i) + merged);
    }
    return out;
  }

 private:
  bool Present(size_t k, uint64_t i) const {
    return plan_.tensors[t_].selected[k].Contains(BlockIndex(i / plan_.options.block_size));
  }
  float Delta(size_t k, uint64_t i) const {
    return inputs_.experts[k][t_].At(i) - inputs_.base[t_].At(i);
  }

  float Merged(uint64_t i) const {
    const StrategyOptions& options = plan_.options.strategy;
    return static_cast<float>(options.lambda) * (options.name == "ties" ? Ties(i) : Sum(i));
  }

  // avg and dare.
  float Sum(uint64_t i) const {
    const StrategyOptions& options = plan_.options.strategy;
    double total = 0;
    for (const double weight : options.weights) total += weight;
    float sum = 0;
    for (size_t k = 0; k < inputs_.experts.size(); ++k) {
      if (!Present(k, i)) continue;
      float delta = Delta(k, i);
      if (options.name == "dare") {
        const double limit = std::floor(options.density * 4294967296.0);
        if (Draw(k, i) >= limit) continue;
        delta /= static_cast<float>(options.density);
      }
      const auto a =
          static_cast<float>(options.normalize ? options.weights[k] / total : options.weights[k]);
      sum += a * delta;
    }
    return sum;
  }

  // Philox4x32-10 of (seed, name, expert, element).
  uint32_t Draw(size_t k, uint64_t i) const {
    const std::string label = "mergepipe.dare/1\n" + std::to_string(plan_.options.strategy.seed) +
                              "\n" + plan_.tensors[t_].name;
    const std::string hex = Sha256Hex(label);
    std::array<uint32_t, 2> key{};
    for (size_t b = 0; b < 8; ++b) {
      key[b / 4] |= static_cast<uint32_t>(std::stoul(hex.substr(2 * b, 2), nullptr, 16))
                    << (8 * (b % 4));
    }
    std::array<uint32_t, 4> c = {static_cast<uint32_t>(i / 4), static_cast<uint32_t>(i / 4 >> 32),
                                 static_cast<uint32_t>(k), 0};
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
      const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
      c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(p1),
           static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(p0)};
      key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
    }
    return c[i % 4];
  }

  // The m-th largest magnitude over the selected blocks of the tensor, or over i's block.
  float Threshold(size_t k, uint64_t i) const {
    const uint64_t block_size = plan_.options.block_size;
    std::vector<float> magnitudes;
    for (uint64_t j = 0; j < inputs_.base[t_].elements(); ++j) {
      const bool counts =
          plan_.options.strategy.trim_by_block ? j / block_size == i / block_size : Present(k, j);
      if (counts) magnitudes.push_back(std::fabs(Delta(k, j)));
    }
    std::ranges::sort(magnitudes, std::greater<>());
    const double kept = plan_.options.strategy.density * static_cast<double>(magnitudes.size());
    return magnitudes[std::max<size_t>(1, static_cast<size_t>(kept)) - 1];
  }

  float Ties(uint64_t i) const {
    const StrategyOptions& options = plan_.options.strategy;
    const auto kept = [&](size_t k) {
      if (!Present(k, i) || Delta(k, i) == 0) return false;
      const auto key = std::pair(k, options.trim_by_block ? i / plan_.options.block_size : 0);
      const auto known = thresholds_.find(key);
      const float threshold =
          known != thresholds_.end() ? known->second : thresholds_[key] = Threshold(k, i);
      return std::fabs(Delta(k, i)) >= threshold;
    };
    float all = 0;
    for (size_t k = 0; k < inputs_.experts.size(); ++k) {
      if (kept(k)) all += static_cast<float>(options.weights[k]) * Delta(k, i);
    }
    float sum = 0;
    float weights = 0;
    for (size_t k = 0; k < inputs_.experts.size(); ++k) {
      const float product = static_cast<float>(options.weights[k]) * Delta(k, i);
      if (!kept(k) || (product > 0) != (all >= 0)) continue;
      sum += product;
      weights += static_cast<float>(options.weights[k]);
    }
    if (weights == 0) return 0;
    return options.normalize ? sum / weights : sum;
  }

  const Inputs& inputs_;
  const Plan& plan_;
  size_t t_;
  mutable std::map<std::pair<size_t, uint64_t>, float> thresholds_;
};

std::string Reference(const Inputs& inputs, const TestMerge& merge) {
  std::string file = merge.layout.files[0].header;
  for (size_t t = 0; t < merge.plan.tensors.size(); ++t)
    file += ReferenceTensor(inputs, merge.plan, t).Bytes();
  return file;
}

// --- The inputs: odd sizes, an empty and a rank-0 tensor, one of integers. ---

TestModel MakeModel(DType dtype, uint64_t seed) {
  return {MakeTensor("cube", dtype, {3, 5, 7}, seed), MakeTensor("exact", dtype, {64}, seed + 1),
          MakeTensor("ids", DType::kI64, {9}, 0),     MakeTensor("long", dtype, {5001}, seed + 2),
          MakeTensor("none", dtype, {0, 4}, seed),    MakeTensor("scalar", dtype, {}, seed + 3)};
}

// The expert that is stored in another type is the last one.
Inputs MakeInputs(DType dtype) {
  return {MakeModel(dtype, 10),
          {MakeModel(dtype, 20), MakeModel(dtype, 30),
           MakeModel(dtype == DType::kF32 ? DType::kBF16 : DType::kF32, 40)}};
}

class RunSliceTest : public ::testing::Test {
 protected:
  // A merge of all three experts; top_p 0.6, so that some blocks are partly selected or untouched.
  TestMerge Plan(const Inputs& inputs, PlanOptions options, double top_p = 0.6) {
    WriteModels(directory_.path(), inputs.base, inputs.experts);
    options.top_p = top_p;
    if (top_p < 1) options.budget_bytes = 300'000;
    options.strategy.weights = {1.0, 0.5, 2.0};
    return PlanMerge(directory_.path(), inputs.experts.size(), options);
  }

  static PlanOptions Options(const char* strategy, uint64_t block_size) {
    PlanOptions options;
    options.strategy.name = strategy;
    options.strategy.density = 0.3;
    options.strategy.lambda = 0.7;
    options.strategy.seed = 9;
    options.block_size = block_size;
    return options;
  }

  TempDirectory directory_;
};

constexpr const char* kStrategies[] = {"avg", "ties", "dare"};

TEST_F(RunSliceTest, AgreesWithTheDefinition) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Inputs inputs = MakeInputs(dtype);
    for (const char* strategy : kStrategies) {
      for (const uint64_t block_size : {1, 7, 64, 100'000}) {
        const TestMerge merge = Plan(inputs, Options(strategy, block_size));
        const auto bytes = RunAlone(merge);
        ASSERT_TRUE(bytes.has_value()) << bytes.error().ToString();
        ASSERT_TRUE(*bytes == Reference(inputs, merge))
            << DTypeName(dtype) << " " << strategy << " " << block_size;
      }
    }
  }
}

TEST_F(RunSliceTest, AgreesWithTheDefinitionWithOtherOptions) {
  const Inputs inputs = MakeInputs(DType::kBF16);
  for (const char* strategy : kStrategies) {
    for (const bool by_block : {false, true}) {
      for (const DType out : {DType::kF32, DType::kF16, DType::kBF16}) {
        PlanOptions options = Options(strategy, 100);
        options.strategy.normalize = false;
        options.strategy.trim_by_block = by_block;
        options.out_dtype = out;
        const TestMerge merge = Plan(inputs, options);
        const auto bytes = RunAlone(merge);
        ASSERT_TRUE(bytes.has_value()) << bytes.error().ToString();
        ASSERT_TRUE(*bytes == Reference(inputs, merge))
            << strategy << " " << by_block << " " << DTypeName(out);
      }
    }
  }
}

TEST_F(RunSliceTest, ReportsWhatItDid) {
  Inputs inputs = MakeInputs(DType::kBF16);
  inputs.experts[1][2].bytes[70] = 99;  // the last integer
  for (const char* strategy : kStrategies) {
    PlanOptions options = Options(strategy, 64);
    options.resident_bytes = 10'000;  // "long" is read again
    const TestMerge merge = Plan(inputs, options);
    SliceReport report;
    const auto bytes = RunAlone(merge, kAmple, &report);
    ASSERT_TRUE(bytes.has_value()) << bytes.error().ToString();
    EXPECT_EQ(report.expert_bytes_read, merge.plan.merge_bytes);
    EXPECT_EQ(report.compare_bytes_read, 3u * 72);
    EXPECT_EQ(report.output_bytes_written, merge.layout.WeightBytes());
    // Once; and, of a tensor that does not stay in memory, its touched blocks once more for each
    // observation round.
    uint64_t base_bytes = 0;
    uint64_t copied = 0;
    ASSERT_EQ(report.parts.size(), 5u);  // "none" has no blocks
    for (const PartReport& part : report.parts) {
      const PlannedTensor& tensor = merge.plan.tensors[part.tensor];
      const TestTensor& base = inputs.base[part.tensor];
      base_bytes += base.bytes.size() + static_cast<uint64_t>(tensor.reads - 1) *
                                            tensor.ElementsOf(tensor.Touched(64), 64) *
                                            DTypeSize(base.dtype);
      const std::string out =
          bytes->substr(merge.layout.tensors[part.tensor].offset, base.bytes.size());
      const uint64_t block_bytes = 64 * DTypeSize(base.dtype);
      ASSERT_EQ(part.block_hashes.size(), tensor.Blocks(64));
      const BlockSet touched = tensor.Touched(64);
      ASSERT_EQ(part.base_hashes.size(), part.block_hashes.size());
      for (uint64_t b = 0; b < part.block_hashes.size(); ++b) {
        const std::string block = out.substr(b * block_bytes, block_bytes);
        ASSERT_EQ(part.block_hashes[b], HashText(block));
        ASSERT_EQ(part.base_hashes[b], HashText(base.bytes.substr(b * block_bytes, block_bytes)));
        if (!touched.Contains(BlockIndex(b))) copied += block.size();
      }
      for (size_t k = 0; k < 3; ++k) {
        const TestTensor& expert = inputs.experts[k][part.tensor];
        std::vector<Hash128> read;
        for (uint64_t b = 0; b < tensor.Blocks(64); ++b) {
          const uint64_t size = 64 * DTypeSize(expert.dtype);
          if (tensor.selected[k].Contains(BlockIndex(b)))
            read.push_back(HashText(expert.bytes.substr(b * size, size)));
        }
        ASSERT_EQ(part.read_hashes[k], read);
        EXPECT_EQ(part.differs[k], base.name == "ids" && k == 1 ? 1 : 0);
      }
    }
    EXPECT_EQ(report.base_bytes_read, base_bytes);
    EXPECT_EQ(report.copied_bytes, copied);
  }
}

TEST_F(RunSliceTest, ReadingAgainGivesTheSameBytes) {
  const Inputs inputs = MakeInputs(DType::kBF16);
  PlanOptions options = Options("ties", 64);
  const TestMerge once = Plan(inputs, options, 1);
  const auto expected = RunAlone(once);
  ASSERT_TRUE(expected.has_value());
  options.resident_bytes = 0;
  const TestMerge again = Plan(inputs, options, 1);
  ASSERT_EQ(once.plan.tensors[3].reads, 1u);
  ASSERT_EQ(again.plan.tensors[3].reads, 3u);
  SliceReport report;
  const auto bytes = RunAlone(again, kAmple, &report);
  ASSERT_TRUE(bytes.has_value()) << bytes.error().ToString();
  EXPECT_TRUE(*bytes == *expected);
  EXPECT_EQ(report.expert_bytes_read, 3 * once.plan.merge_bytes);
}

TEST_F(RunSliceTest, ThreadsAndMemoryDoNotChangeABit) {
  const Inputs inputs = MakeInputs(DType::kF16);
  for (const char* strategy : kStrategies) {
    for (const uint64_t resident : {uint64_t{0}, uint64_t{1} << 30}) {
      PlanOptions options = Options(strategy, 64);
      options.resident_bytes = resident;
      const TestMerge merge = Plan(inputs, options);
      const auto expected = RunAlone(merge);
      ASSERT_TRUE(expected.has_value());
      for (const int threads : {1, 3}) {
        const uint64_t least = LeastMemory(merge, OutputForm::kFull, threads);
        for (const uint64_t more : {0, 1000, 1 << 20}) {
          const auto bytes = RunAlone(merge, {threads, least + more});
          ASSERT_TRUE(bytes.has_value()) << bytes.error().ToString();
          ASSERT_TRUE(*bytes == *expected)
              << strategy << ", " << threads << " threads, memory + " << more;
        }
      }
    }
  }
}

TEST_F(RunSliceTest, TooLittleMemoryHasARemedyThatWorks) {
  const TestMerge merge = Plan(MakeInputs(DType::kF32), Options("ties", 5001), 1);
  const auto refused = RunAlone(merge, {2, uint64_t{1} << 20});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().kind(), ErrorKind::kNoSpace);
  const Problem& problem = refused.error().problems().front();
  EXPECT_EQ(problem.subject, "--memory-mb");
  constexpr std::string_view kBefore = "give at least ";
  ASSERT_EQ(problem.remedy.substr(0, kBefore.size()), kBefore);
  const uint64_t mib = std::stoull(problem.remedy.substr(kBefore.size()));
  EXPECT_TRUE(RunAlone(merge, {2, mib * kMiB}).has_value());
  EXPECT_FALSE(RunAlone(merge, {2, (mib - 1) * kMiB}).has_value());
}

}  // namespace
}  // namespace mergepipe
