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

/// A block of it, as the engine would show it.
class BlockOf final : public BlockDeltas {
 public:
  BlockOf(const TensorDeltas& tensor, size_t block)
      : tensor_(tensor),
        first_(block * tensor.block_size),
        size_(std::min(tensor.block_size, tensor.size() - first_)) {
    for (size_t k = 0; k < tensor.deltas.size(); ++k) {
      if (tensor.selected[k][block]) experts_.emplace_back(static_cast<uint32_t>(k));
    }
  }

  uint64_t first_element() const override { return first_; }
  uint64_t size() const override { return size_; }
  std::span<const ExpertIndex> experts() const override { return experts_; }
  void Delta(size_t slot, uint64_t begin, std::span<float> out) const override {
    ASSERT_LE(begin + out.size(), size_);
    const auto& deltas = tensor_.deltas[experts_[slot].value];
    std::copy_n(deltas.begin() + static_cast<std::ptrdiff_t>(first_ + begin), out.size(),
                out.begin());
  }

 private:
  const TensorDeltas& tensor_;
  size_t first_;
  size_t size_;
  std::vector<ExpertIndex> experts_;
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
                                          std::string name = "model.w") {
  auto selected = SelectedElements(tensor);
  for (uint64_t& count : selected) count += unseen;
  return Row(options).make(options)->StartTensor({name, selected});
}

/// Observes everything in as many parts as `parts`, each serialized and parsed, and finishes all
/// rounds.
inline void ObserveAll(const StrategyOptions& options, const TensorDeltas& tensor,
                       TensorMerge& merge, size_t parts = 1) {
  for (int round = 0; round < Row(options).rounds(options); ++round) {
    auto total = merge.NewStatistics(round);
    size_t block = 0;
    for (size_t part = 1; part <= parts; ++part) {
      auto statistics = merge.NewStatistics(round);
      for (; block < tensor.blocks() * part / parts; ++block) {
        merge.Observe(round, BlockOf(tensor, block), *statistics);
      }
      const std::string bytes = statistics->Serialize();
      auto parsed = merge.ParseStatistics(round, bytes);
      ASSERT_TRUE(parsed.has_value());
      ASSERT_EQ((*parsed)->Serialize(), bytes);
      total->Append(**parsed);
    }
    const Status finished = merge.Finish(round, *total);
    ASSERT_TRUE(finished.has_value()) << finished.error().ToString();
  }
}

inline std::vector<float> ApplyAll(const TensorDeltas& tensor, const TensorMerge& merge) {
  std::vector<float> merged(tensor.size(), 42.0f);
  for (size_t b = 0; b < tensor.blocks(); ++b) {
    const BlockOf block(tensor, b);
    merge.Apply(block, std::span(merged).subspan(block.first_element(), block.size()));
  }
  return merged;
}

inline std::vector<float> Merge(const StrategyOptions& options, const TensorDeltas& tensor) {
  const auto merge = Start(options, tensor);
  ObserveAll(options, tensor, *merge);
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
