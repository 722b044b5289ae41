#include "mergepipe/kernels/philox.h"

#include <algorithm>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/philox.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mergepipe {
namespace HWY_NAMESPACE {
namespace {

constexpr size_t kLanes = 16;

// The words of kLanes counters, the first being `counter`, in the order of the elements.
void PhiloxLanes(uint64_t counter, uint32_t stream, uint32_t key0, uint32_t key1,
                 uint32_t* HWY_RESTRICT out) {
  uint32_t c0[kLanes];
  uint32_t c1[kLanes];
  uint32_t c2[kLanes];
  uint32_t c3[kLanes];
  for (size_t i = 0; i < kLanes; ++i) {
    c0[i] = static_cast<uint32_t>(counter + i);
    c1[i] = static_cast<uint32_t>((counter + i) >> 32);
    c2[i] = stream;
    c3[i] = 0;
  }
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 1  // unrolled, it would not be vectorised
    for (size_t i = 0; i < kLanes; ++i) {
      const uint64_t product0 = uint64_t{0xd2511f53} * c0[i];
      const uint64_t product1 = uint64_t{0xcd9e8d57} * c2[i];
      c0[i] = static_cast<uint32_t>(product1 >> 32) ^ c1[i] ^ key0;
      c1[i] = static_cast<uint32_t>(product1);
      c2[i] = static_cast<uint32_t>(product0 >> 32) ^ c3[i] ^ key1;
      c3[i] = static_cast<uint32_t>(product0);
    }
    key0 += 0x9e3779b9;
    key1 += 0xbb67ae85;
  }
  for (size_t i = 0; i < kLanes; ++i) {
    out[4 * i] = c0[i];
    out[4 * i + 1] = c1[i];
    out[4 * i + 2] = c2[i];
    out[4 * i + 3] = c3[i];
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mergepipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mergepipe {

HWY_EXPORT(PhiloxLanes);

std::array<uint32_t, 4> Philox(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xd2511f53} * counter[0];
    const uint64_t product1 = uint64_t{0xcd9e8d57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key = {key[0] + 0x9e3779b9, key[1] + 0xbb67ae85};
  }
  return counter;
}

void DrawElements(PhiloxKey key, uint32_t stream, uint64_t first, std::span<uint32_t> draws) {
  constexpr size_t kBatch = 64;
  std::array<uint32_t, kBatch> batch;
  uint64_t counter = first / 4;
  size_t skip = first % 4;
  while (!draws.empty()) {
    const size_t taken = std::min(draws.size(), kBatch - skip);
    const bool whole = taken == kBatch;
    HWY_DYNAMIC_DISPATCH(PhiloxLanes)
    (counter, stream, key[0], key[1], whole ? draws.data() : batch.data());
    if (!whole) std::copy_n(batch.begin() + skip, taken, draws.begin());
    draws = draws.subspan(taken);
    counter += kBatch / 4;
    skip = 0;
  }
}

}  // namespace mergepipe
#endif
