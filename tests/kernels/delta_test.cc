#include "mergepipe/kernels/delta.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/samples.h"

namespace mergepipe {
namespace {

using namespace test;

TEST(Delta, SubtractsInFloatForEveryPairOfTypes) {
  for (const DType expert_dtype : kFloatTypes) {
    for (const DType base_dtype : kFloatTypes) {
      for (const size_t length : kLengths) {
        const auto expert = SampleStored(expert_dtype, length, length + 1);
        const auto sample = SampleStored(base_dtype, length, length + 2);
        Misaligned base(sample.size());
        std::ranges::copy(sample, base.bytes().begin());
        std::vector<float> delta(length);
        ComputeDelta({expert_dtype, expert}, {base_dtype, base.bytes()}, delta);
        for (size_t i = 0; i < length; ++i) {
          const auto w =
              static_cast<float>(Decode(expert_dtype, LoadBits(expert_dtype, expert, i)));
          const auto w0 = static_cast<float>(Decode(base_dtype, LoadBits(base_dtype, sample, i)));
          // One rounding of the exact difference: double holds it well enough for a second rounding
          // to be harmless (precision 53 >= 2 * 24 + 2).
          const auto expected =
              static_cast<float>(static_cast<double>(w) - static_cast<double>(w0));
          ASSERT_TRUE(SameFloat(delta[i], expected)) << w << " - " << w0;
        }
      }
    }
  }
}

}  // namespace
}  // namespace mergepipe
