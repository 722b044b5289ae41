#include "mergepipe/kernels/magnitude.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/magnitude.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/common_format.h"
#include "kernels/vector_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

using PatternTag = hn::RebindToUnsigned<FloatTag>;

// Writes the lanes in `mask` to `out`, then anything up to a vector's length; how many there are.
template <class Mask>
HWY_INLINE size_t Collect(hn::Vec<PatternTag> patterns, Mask mask, uint32_t* out) {
  const PatternTag d;
#if HWY_TARGET == HWY_SCALAR
  hn::StoreU(patterns, d, out);
#else
  hn::StoreU(hn::Compress(patterns, mask), d, out);
#endif
  return hn::CountTrue(d, mask);
}

// A comparison with NaN is false, which keeps it out of all counts.
template <class Expert, class Base>
size_t SplitLoop(const std::byte* HWY_RESTRICT expert, const std::byte* HWY_RESTRICT base,
                 size_t count, float low, float high, uint64_t* HWY_RESTRICT counts,
                 uint32_t* HWY_RESTRICT between) {
  const FloatTag d;
  const PatternTag du;
  const auto low_bound = hn::Set(d, low);
  const auto high_bound = hn::Set(d, high);
  size_t found = 0;
  size_t above = 0;
  size_t at_least_high = 0;
  size_t at_least_low = 0;
  for (size_t i = 0; i < count; i += hn::Lanes(d)) {
    const auto magnitude =
        hn::Abs(hn::Sub(LoadFloats<Expert>(d, expert, i), LoadFloats<Base>(d, base, i)));
    const auto reaches_high = hn::Ge(magnitude, high_bound);
    const auto inside = hn::AndNot(reaches_high, hn::Gt(magnitude, low_bound));
    found += Collect(hn::BitCast(du, magnitude), hn::RebindMask(du, inside), between + found);
    above += hn::CountTrue(d, hn::Gt(magnitude, high_bound));
    at_least_high += hn::CountTrue(d, reaches_high);
    at_least_low += hn::CountTrue(d, hn::Ge(magnitude, low_bound));
  }
  counts[0] += above;
  counts[1] += at_least_high;
  counts[2] += at_least_low;
  return found;
}

size_t SplitAny(DType expert_dtype, const std::byte* expert, DType base_dtype,
                const std::byte* base, size_t count, float low, float high, uint64_t* counts,
                uint32_t* between) {
  size_t found = 0;
  WithVectorFormat(expert_dtype, [&](auto expert_format) HWY_ATTR {
    WithVectorFormat(base_dtype, [&](auto base_format) HWY_ATTR {
      found = SplitLoop<decltype(expert_format), decltype(base_format)>(expert, base, count, low,
                                                                        high, counts, between);
    });
  });
  return found;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mergepipe {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr size_t kCountTile = 2048;

size_t CountOf(const StoredElements& expert, const StoredElements& base) {
  const size_t count = base.bytes.size() / DTypeSize(base.dtype);
  RequireElements(base.dtype, base.bytes, count);
  RequireElements(expert.dtype, expert.bytes, count);
  return count;
}

struct Bounds {
  float low;
  float high;
};

}  // namespace

HWY_EXPORT(SplitAny);

namespace {

// At most kDeltaTile deltas of any types, filled up with NaN to whole vectors.
size_t SplitTile(const StoredElements& expert, const StoredElements& base, size_t begin,
                 size_t count, const Bounds& bounds, uint64_t* counts, uint32_t* between) {
  alignas(64) std::array<float, kDeltaTile> deltas;
  alignas(64) static constexpr std::array<float, kDeltaTile> kZeros{};
  const size_t padded = (count + kFusedStep - 1) / kFusedStep * kFusedStep;
  ComputeDelta(Part(expert, begin, count), Part(base, begin, count),
               std::span(deltas).first(count));
  std::fill(deltas.begin() + static_cast<std::ptrdiff_t>(count),
            deltas.begin() + static_cast<std::ptrdiff_t>(padded), kNan);
  return HWY_DYNAMIC_DISPATCH(SplitAny)(DType::kF32, std::as_bytes(std::span(deltas)).data(),
                                        DType::kF32, std::as_bytes(std::span(kZeros)).data(),
                                        padded, bounds.low, bounds.high, counts, between);
}

size_t Split(const StoredElements& expert, const StoredElements& base, const Bounds& bounds,
             BracketCounts& counts, std::span<uint32_t> between) {
  const size_t count = CountOf(expert, base);
  Require(between.size() >= kSplitSlack && between.size() - kSplitSlack >= count);
  std::array<uint64_t, 3> sums{};
  const bool vectors = HasVectorFormat(expert.dtype) && HasVectorFormat(base.dtype);
  const size_t fused = vectors ? count / kFusedStep * kFusedStep : 0;
  size_t found = 0;
  if (fused > 0) {
    found = HWY_DYNAMIC_DISPATCH(SplitAny)(expert.dtype, expert.bytes.data(), base.dtype,
                                           base.bytes.data(), fused, bounds.low, bounds.high,
                                           sums.data(), between.data());
  }
  ForEachDeltaTile(fused, count, [&](size_t begin, size_t length) {
    found += SplitTile(expert, base, begin, length, bounds, sums.data(), between.data() + found);
  });
  counts += {sums[0], sums[1], sums[2]};
  return found;
}

}  // namespace

void DeltaMagnitudes(const StoredElements& expert, const StoredElements& base,
                     std::span<uint32_t> magnitudes) {
  alignas(64) std::array<float, kDeltaTile> storage;
  ForEachDeltaTile(0, magnitudes.size(), [&](size_t begin, size_t length) {
    const auto deltas = std::span(storage).first(length);
    ComputeDelta(Part(expert, begin, length), Part(base, begin, length), deltas);
    for (size_t i = 0; i < length; ++i) {
      const uint32_t magnitude = std::bit_cast<uint32_t>(deltas[i]) & 0x7fffffff;
      magnitudes[begin + i] = magnitude > kLargestMagnitude ? 0 : magnitude;
    }
  });
}

size_t SplitMagnitudes(const StoredElements& expert, const StoredElements& base,
                       const MagnitudeBracket& bracket, BracketCounts& counts,
                       std::span<uint32_t> between) {
  Require(bracket.low <= bracket.high && bracket.high <= kLargestMagnitude);
  return Split(expert, base,
               {std::bit_cast<float>(bracket.low), std::bit_cast<float>(bracket.high)}, counts,
               between);
}

void CountMagnitudes(const MagnitudeDigit& digit, const StoredElements& expert,
                     const StoredElements& base, std::span<uint64_t> bins) {
  Require(digit.shift + digit.width <= 31 && bins.size() == digit.bins());
  const uint32_t above = digit.shift + digit.width;
  const uint64_t first = uint64_t{digit.prefix} << above;
  const uint64_t last =
      std::min<uint64_t>(((uint64_t{digit.prefix} + 1) << above) - 1, kLargestMagnitude);
  if (first > last) return;
  // Everything but NaN is above -1, and what is at `last` is counted, not collected.
  const Bounds bounds{first == 0 ? -1.0f : std::bit_cast<float>(static_cast<uint32_t>(first - 1)),
                      std::bit_cast<float>(static_cast<uint32_t>(last))};
  const auto mask = static_cast<uint32_t>(digit.bins() - 1);
  std::array<uint32_t, kCountTile + kSplitSlack> storage;
  ForEachTileOf<kCountTile>(0, CountOf(expert, base), [&](size_t begin, size_t length) {
    BracketCounts counts;
    const size_t found =
        Split(Part(expert, begin, length), Part(base, begin, length), bounds, counts, storage);
    for (size_t i = 0; i < found; ++i) ++bins[(storage[i] >> digit.shift) & mask];
    bins[(last >> digit.shift) & mask] += counts.at_least_high - counts.above;
    if (first == 0) bins[0] += length - counts.at_least_low;  // NaN
  });
}

std::optional<BinRank> FindRank(std::span<const uint64_t> bins, uint64_t rank) {
  for (size_t bin = bins.size(); bin-- > 0;) {
    if (rank <= bins[bin]) return BinRank{static_cast<uint32_t>(bin), rank};
    rank -= bins[bin];
  }
  return std::nullopt;
}

}  // namespace mergepipe
#endif
