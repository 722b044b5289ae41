#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "mergepipe/strategy/strategy.h"

namespace mergepipe::test {

/// Deltas of one tensor: for each expert all its elements, and which of its blocks are selected.
struct TensorDeltas {
  size_t block_size = 0;
  std::vector<std::vector<float>> deltas;
  std::vector<std::vector<bool>> selected;

  size_t size() const { return deltas[0].size(); }
  size_t blocks() const { return (size() + block_size - 1) / block_size; }
  bool Present(size_t expert, size_t element) const {
    return selected[expert][element / block_size];
  }
};

/// A block of it, as the engine would show it: the base is 0, so the deltas are the experts.
inline BlockDeltas BlockOf(const TensorDeltas& tensor, size_t block) {
  static const std::vector<float> kZeros(1 << 20);
  const size_t first = block * tensor.block_size;
  const size_t size = std::min(tensor.block_size, tensor.size() - first);
  EXPECT_LE(size, kZeros.size());
  BlockDeltas deltas(first, size, {DType::kF32, std::as_bytes(std::span(kZeros).first(size))});
  for (size_t k = 0; k < tensor.deltas.size(); ++k) {
    if (!tensor.selected[k][block]) continue;
    const auto values = std::span(tensor.deltas[k]).subspan(first, size);
    deltas.AddExpert(ExpertIndex(static_cast<uint32_t>(k)), {DType::kF32, std::as_bytes(values)});
  }
  return deltas;
}

/// Copies tiles to their places, and checks that they come in order.
class Collect final : public TileSink {
 public:
  explicit Collect(std::span<float> merged) : merged_(merged) {}
  ~Collect() override { EXPECT_EQ(next_, merged_.size()); }
  void Take(uint64_t begin, std::span<const float> merged) override {
    ASSERT_EQ(begin, next_);
    ASSERT_LE(begin + merged.size(), merged_.size());
    std::ranges::copy(merged, merged_.subspan(begin).begin());
    next_ += merged.size();
  }

 private:
  std::span<float> merged_;
  uint64_t next_ = 0;
};

/// Random deltas with many equal magnitudes, some zeros and infinities and (if asked for) NaNs;
/// about three quarters of the blocks are selected.
inline TensorDeltas SampleTensor(size_t experts, size_t size, size_t block_size, uint64_t seed,
                                 bool nan = true) {
  std::mt19937_64 random(seed);
  TensorDeltas tensor;
  tensor.block_size = block_size;
  tensor.deltas.assign(experts, std::vector<float>(size));
  for (auto& deltas : tensor.deltas) {
    for (float& delta : deltas) {
      const uint64_t draw = random();
      const auto number = static_cast<float>(static_cast<int32_t>(draw >> 32));
      switch (draw % 8) {
        case 0: delta = std::copysign(0.0f, number); break;
        case 1: delta = std::copysign(0.125f, number); break;
        case 2: delta = std::ldexp(number, -170); break;
        default: delta = std::ldexp(number, -32); break;
      }
      if (draw % 257 == 0) delta = std::copysign(HUGE_VALF, number);
      if (nan && draw % 251 == 0) delta = std::nanf("");
    }
  }
  for (size_t k = 0; k < experts; ++k) {
    std::vector<bool> selected;
    for (size_t b = 0; b < tensor.blocks(); ++b) selected.push_back(random() % 4 != 0);
    tensor.selected.push_back(selected);
  }
  return tensor;
}

inline std::vector<uint64_t> SelectedElements(const TensorDeltas& tensor) {
  std::vector<uint64_t> selected(tensor.deltas.size());
  for (size_t k = 0; k < selected.size(); ++k) {
    for (size_t i = 0; i < tensor.size(); ++i) selected[k] += tensor.Present(k, i) ? 1 : 0;
  }
  return selected;
}

inline const StrategyRow& Row(const StrategyOptions& options) {
  const auto row = FindStrategy(options.name);
  EXPECT_TRUE(row.has_value());
  return **row;
}

/// A started merge; `unseen` elements of each expert are selected without a block that shows them.
inline std::unique_ptr<TensorMerge> Start(const StrategyOptions& options,
                                          const TensorDeltas& tensor, uint64_t unseen = 0,
                                          std::string name = "model.w", bool held = false) {
  auto selected = SelectedElements(tensor);
  for (uint64_t& count : selected) count += unseen;
  return Row(options).make(options)->StartTensor({name, selected, held});
}

/// Observes everything in as many parts as `parts`, each serialized and parsed, and finishes all
/// rounds; how many there were.
inline int ObserveAll(const TensorDeltas& tensor, TensorMerge& merge, size_t parts = 1) {
  int rounds = 0;
  for (; merge.WantsRound(); ++rounds) {
    auto total = merge.NewStatistics();
    size_t block = 0;
    for (size_t part = 1; part <= parts; ++part) {
      auto statistics = merge.NewStatistics();
      for (; block < tensor.blocks() * part / parts; ++block) {
        merge.Observe(BlockOf(tensor, block), *statistics);
      }
      const std::string bytes = statistics->Serialize();
      auto parsed = merge.ParseStatistics(bytes);
      EXPECT_TRUE(parsed.has_value());
      if (!parsed) return rounds;
      EXPECT_EQ((*parsed)->Serialize(), bytes);
      total->Append(**parsed);
    }
    const Status finished = merge.Finish(*total);
    EXPECT_TRUE(finished.has_value()) << finished.error().ToString();
    if (!finished) return rounds;
  }
  return rounds;
}

inline std::vector<float> ApplyAll(const TensorDeltas& tensor, const TensorMerge& merge) {
  std::vector<float> merged(tensor.size(), 42.0f);
  for (size_t b = 0; b < tensor.blocks(); ++b) {
    const BlockDeltas block = BlockOf(tensor, b);
    const std::span<float> place(merged.data() + block.first_element(), block.size());
    Collect sink(place);
    merge.Apply(block, sink);
  }
  return merged;
}

inline std::vector<float> Merge(const StrategyOptions& options, const TensorDeltas& tensor) {
  const auto merge = Start(options, tensor);
  EXPECT_LE(ObserveAll(tensor, *merge), Row(options).rounds(options));
  return ApplyAll(tensor, *merge);
}

inline void ExpectSame(std::span<const float> actual, std::span<const float> expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(actual[i]) && std::isnan(expected[i])) continue;
    ASSERT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(expected[i]))
        << i << ": " << actual[i] << " instead of " << expected[i];
  }
}

}  // namespace mergepipe::test
