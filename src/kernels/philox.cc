#include "mergepipe/kernels/philox.h"

#include <algorithm>
#include <cstddef>

#include "kernels/philox_constants.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/philox.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_SCALAR

void PhiloxBatch(uint64_t counter, uint32_t stream, uint32_t key0, uint32_t key1,
                 uint32_t* HWY_RESTRICT out) {
  for (size_t i = 0; i < kDrawBatch / 4; ++i) {
    uint32_t c0 = static_cast<uint32_t>(counter + i);
    uint32_t c1 = static_cast<uint32_t>((counter + i) >> 32);
    uint32_t c2 = stream;
    uint32_t c3 = 0;
    for (uint32_t round = 0; round < 10; ++round) {
      const uint64_t product0 = kFactor0 * c0;
      const uint64_t product1 = kFactor1 * c2;
      c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ (key0 + round * kStep0);
      c1 = static_cast<uint32_t>(product1);
      c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ (key1 + round * kStep1);
      c3 = static_cast<uint32_t>(product0);
    }
    out[4 * i] = c0;
    out[4 * i + 1] = c1;
    out[4 * i + 2] = c2;
    out[4 * i + 3] = c3;
  }
}

void DrawBatches(uint64_t counter, uint32_t stream, uint32_t key0, uint32_t key1,
                 uint32_t* HWY_RESTRICT out, size_t batches) {
  for (size_t i = 0; i < batches; ++i) {
    PhiloxBatch(counter + i * kDrawBatch / 4, stream, key0, key1, out + i * kDrawBatch);
  }
}

#else

namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::CappedTag<uint64_t, 8>;
using Words = hn::Vec<Tag>;

// Products of the low halves.
HWY_INLINE Words Multiply(Words a, Words factor) {
  const hn::Repartition<uint32_t, Tag> d32;
  return hn::MulEven(hn::BitCast(d32, a), hn::BitCast(d32, factor));
}

// The words of one counter value a lane, in the lanes' low halves; what is in the high halves
// never gets into the low ones.
struct Counters {
  Words c0;
  Words c1;
  Words c2;
  Words c3;

  HWY_INLINE void Round(Words factor0, Words factor1, Words key0, Words key1) {
    const auto product0 = Multiply(c0, factor0);
    const auto product1 = Multiply(c2, factor1);
    c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(product1), c1), key0);
    c1 = product1;
    c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(product0), c3), key1);
    c3 = product0;
  }
};

HWY_INLINE Words Pair(Tag d, Words low, Words high) {
  return hn::Or(hn::And(low, hn::Set(d, 0xffffffff)), hn::ShiftLeft<32>(high));
}

// A vector of counters has those of its first half in the even lanes and those of the second in the
// odd ones: interleaving the words within blocks of 128 bits then puts them in order.
void DrawBatches(uint64_t counter, uint32_t stream, uint32_t key0, uint32_t key1,
                 uint32_t* HWY_RESTRICT out, size_t batches) {
  const Tag d;
  const size_t lanes = hn::Lanes(d);
  const hn::Repartition<uint32_t, Tag> d32;
  alignas(64) uint64_t order[8];
  for (size_t lane = 0; lane < 8; ++lane) order[lane] = lane / 2 + lane % 2 * (lanes / 2);
  const auto offsets = hn::Load(d, order);
  const auto factor0 = hn::Set(d, kFactor0);
  const auto factor1 = hn::Set(d, kFactor1);
  for (size_t i = 0; i < batches * kDrawBatch; i += 4 * lanes) {
    const auto value = hn::Add(hn::Set(d, counter + i / 4), offsets);
    Counters counters{value, hn::ShiftRight<32>(value), hn::Set(d, stream), hn::Zero(d)};
#pragma GCC unroll 10
    for (uint32_t round = 0; round < 10; ++round) {
      counters.Round(factor0, factor1, hn::Set(d, uint64_t{key0 + round * kStep0}),
                     hn::Set(d, uint64_t{key1 + round * kStep1}));
    }
    const auto first = Pair(d, counters.c0, counters.c1);
    const auto second = Pair(d, counters.c2, counters.c3);
    hn::StoreU(hn::BitCast(d32, hn::InterleaveLower(d, first, second)), d32, out + i);
    hn::StoreU(hn::BitCast(d32, hn::InterleaveUpper(d, first, second)), d32, out + i + 2 * lanes);
  }
}

#endif

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mergepipe {

HWY_EXPORT(DrawBatches);

std::array<uint32_t, 4> Philox(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kFactor0 * counter[0];
    const uint64_t product1 = kFactor1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key = {key[0] + kStep0, key[1] + kStep1};
  }
  return counter;
}

void DrawElements(PhiloxKey key, uint32_t stream, uint64_t first, std::span<uint32_t> draws) {
  std::array<uint32_t, kDrawBatch> batch;
  uint64_t counter = first / 4;
  size_t skip = first % 4;
  while (!draws.empty()) {
    const size_t whole = skip == 0 ? draws.size() / kDrawBatch : 0;
    const size_t taken = whole > 0 ? whole * kDrawBatch : std::min(draws.size(), kDrawBatch - skip);
    HWY_DYNAMIC_DISPATCH(DrawBatches)
    (counter, stream, key[0], key[1], whole > 0 ? draws.data() : batch.data(),
     std::max<size_t>(whole, 1));
    if (whole == 0) std::copy_n(batch.begin() + skip, taken, draws.begin());
    draws = draws.subspan(taken);
    counter += (skip + taken) / 4;
    skip = 0;
  }
}

}  // namespace mergepipe
#endif
