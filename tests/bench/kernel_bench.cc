// What the hot loops of a merge cost, on one thread. Bytes are those of the stored elements that a
// loop reads, base and experts.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "mergepipe/kernels/avg.h"
#include "mergepipe/kernels/convert.h"
#include "mergepipe/kernels/dare.h"
#include "mergepipe/kernels/magnitude.h"
#include "mergepipe/kernels/nonfinite.h"
#include "mergepipe/kernels/output.h"
#include "mergepipe/kernels/philox.h"
#include "mergepipe/kernels/statistics.h"
#include "mergepipe/kernels/ties.h"
#include "mergepipe/strategy/strategy.h"
#include "strategy/magnitude_sample.h"

namespace mergepipe {
namespace {

constexpr size_t kExperts = 4;
constexpr size_t kElements = size_t{1} << 22;
constexpr size_t kBlock = size_t{1} << 19;
constexpr size_t kTile = 1024;

// A base of normal weights and experts that are a little apart from it, as one type.
struct Model {
  DType dtype;
  std::array<std::vector<std::byte>, kExperts + 1> stored;

  explicit Model(DType type) : dtype(type) {
    std::mt19937_64 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> base(kElements);
    for (float& value : base) value = 0.02f * normal(random);
    std::vector<float> values = base;
    for (size_t k = 0; k <= kExperts; ++k) {
      stored[k].resize(kElements * DTypeSize(dtype));
      FromFloat(dtype, values, stored[k]);
      for (size_t i = 0; i < kElements; ++i) values[i] = base[i] + 0.001f * normal(random);
    }
  }
  StoredElements Base(size_t begin, size_t count) const {
    return Part({dtype, stored[0]}, begin, count);
  }
  StoredElements Expert(size_t k, size_t begin, size_t count) const {
    return Part({dtype, stored[k + 1]}, begin, count);
  }
  BlockDeltas Block(size_t begin, size_t count) const {
    BlockDeltas block(begin, count, Base(begin, count));
    for (uint32_t k = 0; k < kExperts; ++k)
      block.AddExpert(ExpertIndex(k), Expert(k, begin, count));
    return block;
  }
};

const Model& ModelOf(DType dtype) {
  static const Model kBf16(DType::kBF16);
  static const Model kF16(DType::kF16);
  static const Model kF32(DType::kF32);
  return dtype == DType::kBF16 ? kBf16 : dtype == DType::kF16 ? kF16 : kF32;
}

// body(begin) for the tiles of the model; then what was read.
template <class Body>
void RunTiles(benchmark::State& state, const Model& model, size_t inputs, Body body) {
  for (auto _ : state) {
    for (size_t begin = 0; begin < kElements; begin += kTile) body(begin);
  }
  state.SetBytesProcessed(state.iterations() *
                          static_cast<int64_t>(inputs * kElements * DTypeSize(model.dtype)));
}

void MergeTiesTiles(benchmark::State& state, DType dtype) {
  const Model& model = ModelOf(dtype);
  std::vector<float> merged(kTile);
  RunTiles(state, model, kExperts + 1, [&](size_t begin) {
    std::array<TiesInput, kExperts> inputs;
    for (size_t k = 0; k < kExperts; ++k) inputs[k] = {model.Expert(k, begin, kTile), 5e-4f, 1.0f};
    MergeTies(model.Base(begin, kTile), inputs, TiesElection::kMean, 1.0f, merged);
    benchmark::DoNotOptimize(merged.data());
  });
}

void MergeAvgTiles(benchmark::State& state, DType dtype) {
  const Model& model = ModelOf(dtype);
  std::vector<float> merged(kTile);
  RunTiles(state, model, kExperts + 1, [&](size_t begin) {
    std::array<AvgInput, kExperts> inputs;
    for (size_t k = 0; k < kExperts; ++k) inputs[k] = {model.Expert(k, begin, kTile), 0.25f};
    MergeAvg(model.Base(begin, kTile), inputs, 1.0f, merged);
    benchmark::DoNotOptimize(merged.data());
  });
}

void AddRescaledTiles(benchmark::State& state, DType dtype, float keep_rate) {
  const Model& model = ModelOf(dtype);
  const DareKeep keep{static_cast<uint64_t>(static_cast<double>(keep_rate) * 0x1p32), keep_rate};
  std::vector<uint32_t> draws(kTile);
  std::vector<float> sum(kTile);
  DrawElements({1, 2}, 0, 0, draws);
  RunTiles(state, model, 2, [&](size_t begin) {
    AddRescaled(keep, draws, 0.25f, model.Expert(0, begin, kTile), model.Base(begin, kTile), sum);
    benchmark::DoNotOptimize(sum.data());
  });
}

void DrawTiles(benchmark::State& state) {
  std::vector<uint32_t> draws(kTile);
  for (auto _ : state) {
    for (size_t begin = 0; begin < kElements; begin += kTile) {
      DrawElements({1, 2}, 3, begin, draws);
      benchmark::DoNotOptimize(draws.data());
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kElements * 4));
}

void SplitTiles(benchmark::State& state, DType dtype, const MagnitudeBracket& bracket) {
  const Model& model = ModelOf(dtype);
  std::vector<uint32_t> between(kTile + kSplitSlack);
  RunTiles(state, model, 2, [&](size_t begin) {
    BracketCounts counts;
    benchmark::DoNotOptimize(SplitMagnitudes(model.Expert(0, begin, kTile),
                                             model.Base(begin, kTile), bracket, counts, between));
    benchmark::DoNotOptimize(counts);
  });
}

void HistogramTiles(benchmark::State& state, DType dtype, const MagnitudeDigit& digit) {
  const Model& model = ModelOf(dtype);
  std::vector<uint64_t> bins(digit.bins());
  RunTiles(state, model, 2, [&](size_t begin) {
    CountMagnitudes(digit, model.Expert(0, begin, kTile), model.Base(begin, kTile), bins);
  });
}

void CountNonFiniteTiles(benchmark::State& state, DType dtype) {
  const Model& model = ModelOf(dtype);
  for (auto _ : state) benchmark::DoNotOptimize(CountNonFinite(dtype, model.stored[0]));
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(model.stored[0].size()));
}

void WriteMergedTiles(benchmark::State& state, DType dtype, DType out_dtype) {
  const Model& model = ModelOf(dtype);
  std::vector<float> merged(kTile, 1e-3f);
  std::vector<std::byte> out(kTile * DTypeSize(out_dtype));
  RunTiles(state, model, 1, [&](size_t begin) {
    const StoredElements base = model.Base(begin, kTile);
    benchmark::DoNotOptimize(WriteMerged(base, merged, out_dtype, out));
    benchmark::DoNotOptimize(out.data());
  });
}

void ConvertStoredTiles(benchmark::State& state, DType dtype, DType out_dtype) {
  const Model& model = ModelOf(dtype);
  std::vector<std::byte> out(kTile * DTypeSize(out_dtype));
  RunTiles(state, model, 1, [&](size_t begin) {
    benchmark::DoNotOptimize(ConvertStored(dtype, model.Base(begin, kTile).bytes, out_dtype, out));
    benchmark::DoNotOptimize(out.data());
  });
}

void SumDeltasTiles(benchmark::State& state, DType dtype) {
  const Model& model = ModelOf(dtype);
  RunTiles(state, model, 2, [&](size_t begin) {
    if (begin % kBlock != 0) return;
    benchmark::DoNotOptimize(SumDeltas(model.Expert(0, begin, kBlock), model.Base(begin, kBlock)));
  });
}

void BlockMagnitudes(benchmark::State& state, DType dtype) {
  const Model& model = ModelOf(dtype);
  RunTiles(state, model, 2, [&](size_t begin) {
    if (begin % kBlock != 0) return;
    benchmark::DoNotOptimize(BlockMagnitude(model.Block(begin, kBlock), 0, kBlock * 6 / 10));
  });
}

class Discard final : public TileSink {
 public:
  void Take(uint64_t, std::span<const float> merged) override {
    benchmark::DoNotOptimize(merged.data());
  }
};

// All of a strategy on one tensor: every round over every block, then Apply.
void MergeTensor(benchmark::State& state, DType dtype, const StrategyOptions& options, bool held) {
  const Model& model = ModelOf(dtype);
  const auto strategy = (*FindStrategy(options.name))->make(options);
  const std::vector<uint64_t> selected(kExperts, kElements);
  Discard sink;
  int rounds = 0;
  for (auto _ : state) {
    const auto merge = strategy->StartTensor({"w", selected, held});
    for (rounds = 0; merge->WantsRound(); ++rounds) {
      const auto total = merge->NewStatistics();
      for (size_t begin = 0; begin < kElements; begin += kBlock)
        merge->Observe(model.Block(begin, kBlock), *total);
      if (!merge->Finish(*total)) return state.SkipWithError("Finish failed");
    }
    for (size_t begin = 0; begin < kElements; begin += kBlock)
      merge->Apply(model.Block(begin, kBlock), sink);
  }
  state.counters["rounds"] = rounds;
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kExperts * kElements));
  state.SetBytesProcessed(state.iterations() *
                          static_cast<int64_t>((kExperts + 1) * kElements * DTypeSize(dtype)));
}

StrategyOptions Options(const char* name, double density, bool by_block = false) {
  return {.name = name,
          .density = density,
          .weights = std::vector<double>(kExperts, 1.0),
          .trim_by_block = by_block};
}

constexpr MagnitudeBracket kNarrow{0x3a000000, 0x3a040000};  // holds some 2 % of the deltas

BENCHMARK_CAPTURE(MergeTiesTiles, bf16, DType::kBF16);
BENCHMARK_CAPTURE(MergeTiesTiles, f16, DType::kF16);
BENCHMARK_CAPTURE(MergeTiesTiles, f32, DType::kF32);
BENCHMARK_CAPTURE(MergeAvgTiles, bf16, DType::kBF16);
BENCHMARK_CAPTURE(MergeAvgTiles, f16, DType::kF16);
BENCHMARK_CAPTURE(MergeAvgTiles, f32, DType::kF32);
BENCHMARK(DrawTiles);
BENCHMARK_CAPTURE(AddRescaledTiles, bf16_half, DType::kBF16, 0.5f);
BENCHMARK_CAPTURE(AddRescaledTiles, bf16_third, DType::kBF16, 0.3f);
BENCHMARK_CAPTURE(SplitTiles, bf16, DType::kBF16, kNarrow);
BENCHMARK_CAPTURE(SplitTiles, f16, DType::kF16, kNarrow);
BENCHMARK_CAPTURE(SplitTiles, f32, DType::kF32, kNarrow);
BENCHMARK_CAPTURE(HistogramTiles, bf16_high, DType::kBF16, MagnitudeDigit{15, 16, 0});
BENCHMARK_CAPTURE(HistogramTiles, bf16_low, DType::kBF16, MagnitudeDigit{0, 15, 0x3a000000 >> 15});
BENCHMARK_CAPTURE(CountNonFiniteTiles, bf16, DType::kBF16);
BENCHMARK_CAPTURE(CountNonFiniteTiles, f16, DType::kF16);
BENCHMARK_CAPTURE(CountNonFiniteTiles, f32, DType::kF32);
BENCHMARK_CAPTURE(WriteMergedTiles, bf16, DType::kBF16, DType::kBF16);
BENCHMARK_CAPTURE(WriteMergedTiles, f16, DType::kF16, DType::kF16);
BENCHMARK_CAPTURE(WriteMergedTiles, f32, DType::kF32, DType::kF32);
BENCHMARK_CAPTURE(WriteMergedTiles, f32_bf16, DType::kF32, DType::kBF16);
BENCHMARK_CAPTURE(ConvertStoredTiles, f32_bf16, DType::kF32, DType::kBF16);
BENCHMARK_CAPTURE(ConvertStoredTiles, bf16_f32, DType::kBF16, DType::kF32);
BENCHMARK_CAPTURE(ConvertStoredTiles, f16_bf16, DType::kF16, DType::kBF16);
BENCHMARK_CAPTURE(SumDeltasTiles, bf16, DType::kBF16);
BENCHMARK_CAPTURE(BlockMagnitudes, bf16, DType::kBF16);
BENCHMARK_CAPTURE(BlockMagnitudes, f32, DType::kF32);

BENCHMARK_CAPTURE(MergeTensor, ties_held_bf16, DType::kBF16, Options("ties", 0.6), true);
BENCHMARK_CAPTURE(MergeTensor, ties_held_f32, DType::kF32, Options("ties", 0.6), true);
BENCHMARK_CAPTURE(MergeTensor, ties_reread_bf16, DType::kBF16, Options("ties", 0.6), false);
BENCHMARK_CAPTURE(MergeTensor, ties_block_bf16, DType::kBF16, Options("ties", 0.6, true), false);
BENCHMARK_CAPTURE(MergeTensor, avg_bf16, DType::kBF16, Options("avg", 1.0), false);
BENCHMARK_CAPTURE(MergeTensor, dare_half_bf16, DType::kBF16, Options("dare", 0.5), false);
BENCHMARK_CAPTURE(MergeTensor, dare_third_bf16, DType::kBF16, Options("dare", 0.3), false);

}  // namespace
}  // namespace mergepipe
