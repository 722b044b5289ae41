#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "mergepipe/base/dtype.h"
#include "run/demo_random.h"
#include "run/demo_shapes.h"

namespace mergepipe {

/// The values of one tensor of one model: a pure function of (seed, model, tensor name, element
/// index).
///
/// Base: W0 = center + spread * N, with N about normal (0, 1). Center and spread are 0 and 0.02, in
/// norms 1 and 0.05.
///
/// Expert k: W0 as stored + spread * s_k(depth) * (0.6 r(row) C + 0.8 r_k(row) O_k), rounded once:
///  - C and O_k are about normal (0, 1); C and r are the same in all experts, so the cosine between
///    two deltas is about 0.36 where neither is frozen;
///  - s_k is 0.2 at the expert's own depth, 1/30 of that at the far side (depths form a circle);
///  - r is heavy-tailed: at most 1/4 in half of the rows, 1 or more in one of 8, 8 in one of 64.
///
/// Frozen (W_k = W0): every 8th layer (one of them if there are fewer), other ones in each expert,
/// and 28 of 32 equal runs of embedding rows.
class DemoValues {
 public:
  /// `model` is 0 for the base, k for expert k. `layers` is the number of decoder layers.
  DemoValues(const DemoTensor& tensor, uint32_t model, uint32_t layers, DType dtype, uint64_t seed);

  /// Writes the stored bytes of out.size() / DTypeSize elements from element `first` on.
  /// Thread-safe.
  void Fill(uint64_t first, std::span<std::byte> out) const;

 private:
  bool IsFrozen(uint64_t row) const;
  void AddChange(uint64_t first, uint64_t row, std::span<float> values) const;

  DType dtype_;
  uint32_t model_;
  uint64_t row_elements_;
  bool frozen_;                // the whole tensor
  uint64_t rows_per_run_ = 0;  // of an embedding; 0: not in runs
  float center_;
  float spread_;
  float change_;  // spread * s_k(depth)
  RandomStream base_;
  RandomStream common_;
  RandomStream common_rows_;
  RandomStream own_;
  RandomStream own_rows_;
};

}  // namespace mergepipe
