#include "mergepipe/kernels/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/lane_sums.h"
#include "mergepipe/kernels/philox.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/statistics.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/checks.h"
#include "kernels/float_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

constexpr size_t kLanes = kStatisticsLanes;
constexpr size_t kChunk = kStatisticsChunk;

// A chunk's values, those that are not finite as 0, filled up with 0 to whole rows of kLanes.
struct Tile {
  float values[kChunk];
  size_t rows;
};

template <class ValueAt>
HWY_INLINE void FillTile(ValueAt value_at, size_t count, Tile& tile, LaneSums& sums) {
  // Two loops: in one with the sums GCC would not vectorise the conversion of some types.
  for (size_t i = 0; i < count; ++i) tile.values[i] = value_at(i);
  uint32_t nonzeros = 0;
  uint32_t nonfinite = 0;
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    // Signs of differences instead of conditions, around which GCC would branch.
    const uint32_t bits = AsBits(tile.values[i]);
    const uint32_t magnitude = bits & F32::kMagnitude;
    const uint32_t is_nonfinite = (F32::kInfinity - 1 - magnitude) >> 31;
    const uint32_t kept = bits & (is_nonfinite - 1);
    const uint32_t kept_magnitude = kept & F32::kMagnitude;
    nonzeros += (0 - magnitude) >> 31;
    nonfinite += is_nonfinite;
    largest = largest < kept_magnitude ? kept_magnitude : largest;
    tile.values[i] = AsFloat(kept);
  }
  tile.rows = (count + kLanes - 1) / kLanes;
  for (size_t i = count; i < tile.rows * kLanes; ++i) tile.values[i] = 0;
  sums.nonzeros += nonzeros;
  sums.nonfinite += nonfinite;
  sums.max_magnitude = sums.max_magnitude < largest ? largest : sums.max_magnitude;
}

void AddSquares(const Tile& tile, double* HWY_RESTRICT squares) {
  for (size_t row = 0; row < tile.rows; ++row) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const auto value = static_cast<double>(tile.values[row * kLanes + lane]);
      squares[lane] += value * value;
    }
  }
}

void AddSketch(const Tile& tile, const uint32_t* HWY_RESTRICT signs, uint32_t mask,
               double* HWY_RESTRICT sketch) {
  double chunk[kLanes] = {};
  for (size_t row = 0; row < tile.rows; ++row) {
    const uint32_t word = signs[row];
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const uint32_t sign = (word >> lane) << 31;
      chunk[lane] += static_cast<double>(AsFloat(AsBits(tile.values[row * kLanes + lane]) ^ sign));
    }
  }
  for (size_t lane = 0; lane < kLanes; ++lane) sketch[lane ^ (mask % kLanes)] += chunk[lane];
}

template <class Expert, class Base>
void AddDeltas(const std::byte* HWY_RESTRICT expert, const std::byte* HWY_RESTRICT base,
               size_t count, const SketchDraws& draws, LaneSums& sums) {
  Tile tile;
  for (size_t begin = 0; begin < count; begin += kChunk) {
    const size_t size = count - begin < kChunk ? count - begin : kChunk;
    FillTile(
        [&](size_t i) HWY_ATTR {
          return Expert::ToFloat(Load<Expert>(expert, begin + i)) -
                 Base::ToFloat(Load<Base>(base, begin + i));
        },
        size, tile, sums);
    AddSquares(tile, sums.squares);
    AddSketch(tile, draws.signs + begin / kLanes, draws.masks[begin / kChunk], sums.sketch);
  }
}

template <class Format>
void AddValues(const std::byte* HWY_RESTRICT stored, size_t count, LaneSums& sums) {
  Tile tile;
  for (size_t begin = 0; begin < count; begin += kChunk) {
    const size_t size = count - begin < kChunk ? count - begin : kChunk;
    FillTile([&](size_t i) HWY_ATTR { return Format::ToFloat(Load<Format>(stored, begin + i)); },
             size, tile, sums);
    AddSquares(tile, sums.squares);
  }
}

void AddAnyDeltas(DType expert_dtype, const std::byte* expert, DType base_dtype,
                  const std::byte* base, size_t count, const SketchDraws& draws, LaneSums& sums) {
  WithFormat(expert_dtype, [&](auto expert_format) HWY_ATTR {
    WithFormat(base_dtype, [&](auto base_format) HWY_ATTR {
      AddDeltas<decltype(expert_format), decltype(base_format)>(expert, base, count, draws, sums);
    });
  });
}

void AddAnyValues(DType dtype, const std::byte* stored, size_t count, LaneSums& sums) {
  WithFormat(dtype,
             [&](auto format) HWY_ATTR { AddValues<decltype(format)>(stored, count, sums); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mergepipe {
namespace {

// Fixed for ever: sketches in catalogs are compared with new ones.
constexpr PhiloxKey kSketchKey = {0x6d657267, 0x65706970};
constexpr uint32_t kSignStream = 0;
constexpr uint32_t kMaskStream = 1;

// Drawn for so many chunks at a time.
constexpr size_t kDrawnChunks = 64;

double SumLanes(const LaneSums& sums) {
  double total = 0;
  for (const double lane : sums.squares) total += lane;
  return total;
}

}  // namespace

HWY_EXPORT(AddAnyDeltas);
HWY_EXPORT(AddAnyValues);

DeltaSums SumDeltas(const StoredElements& expert, const StoredElements& base) {
  const size_t expert_width = DTypeSize(expert.dtype);
  const size_t base_width = DTypeSize(base.dtype);
  const size_t count = expert.bytes.size() / expert_width;
  RequireElements(expert.dtype, expert.bytes, count);
  RequireElements(base.dtype, base.bytes, count);
  LaneSums sums;
  std::array<uint32_t, kDrawnChunks * kStatisticsChunk / kStatisticsLanes> signs;
  std::array<uint32_t, kDrawnChunks> masks;
  constexpr size_t kStep = kDrawnChunks * kStatisticsChunk;
  for (size_t begin = 0; begin < count; begin += kStep) {
    const size_t size = std::min(kStep, count - begin);
    const size_t rows = (size + kStatisticsLanes - 1) / kStatisticsLanes;
    const size_t chunks = (size + kStatisticsChunk - 1) / kStatisticsChunk;
    DrawElements(kSketchKey, kSignStream, begin / kStatisticsLanes, std::span(signs).first(rows));
    DrawElements(kSketchKey, kMaskStream, begin / kStatisticsChunk, std::span(masks).first(chunks));
    HWY_DYNAMIC_DISPATCH(AddAnyDeltas)
    (expert.dtype, expert.bytes.data() + begin * expert_width, base.dtype,
     base.bytes.data() + begin * base_width, size, {signs.data(), masks.data()}, sums);
  }
  DeltaSums result;
  result.sum_squares = SumLanes(sums);
  result.max_abs = std::bit_cast<float>(sums.max_magnitude);
  result.nonzeros = sums.nonzeros;
  result.nonfinite = sums.nonfinite;
  std::ranges::copy(sums.sketch, result.sketch.begin());
  return result;
}

double SumSquares(const StoredElements& values) {
  const size_t count = values.bytes.size() / DTypeSize(values.dtype);
  RequireElements(values.dtype, values.bytes, count);
  LaneSums sums;
  HWY_DYNAMIC_DISPATCH(AddAnyValues)(values.dtype, values.bytes.data(), count, sums);
  return SumLanes(sums);
}

std::array<int8_t, kStatisticsLanes> QuantizeSketch(
    const std::array<double, kStatisticsLanes>& sketch) {
  double largest = 0;
  for (const double number : sketch) largest = std::max(largest, std::fabs(number));
  std::array<int8_t, kStatisticsLanes> quantized{};
  if (largest == 0) return quantized;
  for (size_t i = 0; i < kStatisticsLanes; ++i) {
    quantized[i] = static_cast<int8_t>(std::nearbyint(sketch[i] / largest * 127));
  }
  return quantized;
}

}  // namespace mergepipe
#endif
