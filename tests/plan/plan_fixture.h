#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "plan/family.h"

namespace mergepipe::test {

/// Float tensors of random types (the experts' may differ from the base's), some integer ones,
/// empty ones and rank-0 ones; random budget, top_p, resident bytes and rounds.
inline Family RandomFamily(std::mt19937_64& random) {
  const auto below = [&](uint64_t n) { return random() % n; };
  constexpr DType kFloats[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16};
  const size_t experts = 1 + below(4);
  std::vector<TensorSpec> base;
  for (uint64_t t = 0; t <= below(8); ++t) {
    TensorSpec tensor{"t" + std::to_string(t), kFloats[below(4)], {}};
    if (below(8) == 0) tensor.dtype = DType::kI32;
    for (uint64_t rank = below(3); rank > 0; --rank) tensor.shape.push_back(below(150));
    base.push_back(tensor);
  }
  Family family = MakeFamily(base, 0, 1 + below(below(2) == 0 ? 50 : 5000));
  for (size_t k = 0; k < experts; ++k) {
    std::vector<TensorSpec> tensors = base;
    for (TensorSpec& tensor : tensors) {
      if (IsFloat(tensor.dtype) && below(4) == 0) tensor.dtype = kFloats[below(4)];
    }
    family.experts.push_back(MakeModel("expert" + std::to_string(k), tensors));
  }
  const uint64_t all = family.base.layout.WeightBytes() * experts + 1;
  if (below(4) != 0) family.options.budget_bytes = family.Fingerprints() + below(2 * all);
  if (below(4) != 0) family.options.top_p = static_cast<double>(1 + below(100)) / 100;
  family.options.resident_bytes = below(3) == 0 ? uint64_t{1} << 40 : below(all);
  family.rounds = static_cast<int>(below(3));
  return family;
}

/// Statistics from a table; `stored` and `base` are indexed by expert, tensor and block.
class FakeStatistics : public StatisticsSource {
 public:
  explicit FakeStatistics(const Family& family)
      : kinds(family.experts.size(), StatisticsKind::kExact),
        stored(family.experts.size()),
        base(family.base.layout.tensors.size()),
        layout_(family.base.layout),
        block_size_(family.options.block_size) {
    for (auto& expert : stored) {
      for (uint32_t t = 0; t < base.size(); ++t) expert.emplace_back(Blocks(t));
    }
    for (uint32_t t = 0; t < base.size(); ++t) base[t].resize(Blocks(t));
  }

  uint64_t Blocks(uint32_t tensor) const {
    return (layout_.tensors[tensor].elements() + block_size_ - 1) / block_size_;
  }

  StatisticsKind KindOf(uint32_t expert) const override { return kinds[expert]; }

  Result<std::vector<BlockStatistics>> OfExpert(uint32_t expert, uint32_t tensor) override {
    const auto& all = stored[expert][tensor];
    if (kinds[expert] == StatisticsKind::kExact) return all;
    uint64_t number = 0;
    for (uint32_t t = 0; t < tensor; ++t) {
      if (IsFloat(layout_.tensors[t].dtype)) number += Blocks(t);
    }
    std::vector<BlockStatistics> probed;
    for (const BlockStatistics& block : all) {
      if (number++ % stride == 0) probed.push_back(block);
    }
    return probed;
  }

  Result<std::vector<BaseBlockStatistics>> OfBase(uint32_t tensor) override { return base[tensor]; }

  std::vector<StatisticsKind> kinds;
  uint64_t stride = 1;  ///< of experts of kProbe
  std::vector<std::vector<std::vector<BlockStatistics>>> stored;
  std::vector<std::vector<BaseBlockStatistics>> base;

 private:
  ModelLayout layout_;
  uint64_t block_size_;
};

/// Some block; one in five is equal to the base's.
inline BlockStatistics RandomBlock(std::mt19937_64& random) {
  BlockStatistics block;
  block.hash = {random(), random()};
  if (random() % 5 == 0) return block;
  block.sum_squares = std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 8));
  block.max_abs = static_cast<float>(std::sqrt(block.sum_squares));
  block.nonzeros = 1 + static_cast<uint32_t>(random() % 100);
  for (int8_t& value : block.sketch) value = static_cast<int8_t>(random() % 255 - 127);
  return block;
}

inline FakeStatistics RandomStatistics(const Family& family, std::mt19937_64& random) {
  FakeStatistics statistics(family);
  for (auto& expert : statistics.stored) {
    for (auto& tensor : expert) {
      for (BlockStatistics& block : tensor) block = RandomBlock(random);
    }
  }
  for (auto& tensor : statistics.base) {
    for (BaseBlockStatistics& block : tensor) {
      block.sum_squares = static_cast<double>(random());
      block.hash = {random(), random()};
    }
  }
  return statistics;
}

/// Takes a probe of the experts of kNone if the plan needs one, as a merge does, and plans. The
/// table's blocks stand for their samples.
inline Result<Plan> ProbeAndPlan(const PlanInput& input, FakeStatistics& statistics) {
  MERGEPIPE_ASSIGN_OR_RETURN(const Plan started, StartPlan(input));
  std::vector<uint32_t> lacking;
  for (uint32_t k = 0; k < statistics.kinds.size(); ++k) {
    if (statistics.kinds[k] == StatisticsKind::kNone) lacking.push_back(k);
  }
  if (!lacking.empty() && NeedsScores(input, started)) {
    MERGEPIPE_ASSIGN_OR_RETURN(const ProbeReads probe, PlanProbe(input, started, lacking));
    statistics.stride = probe.stride;
    for (const uint32_t k : lacking) {
      if (probe.stride > 0) statistics.kinds[k] = StatisticsKind::kProbe;
    }
  }
  return mergepipe::MakePlan(input);
}

/// Whether `text` holds `part`; shows both if not.
inline ::testing::AssertionResult Says(const std::string& text, std::string_view part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "'" << part << "' is not in:\n" << text;
}

}  // namespace mergepipe::test
