#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "mergepipe/base/units.h"
#include "mergepipe/kernels/delta.h"

namespace mergepipe {

/// One block as a merge sees it: the stored elements of the base and of the experts that are
/// present. A block is converted as often as it is needed, never held as float32. The bytes belong
/// to the caller and must outlive this.
class BlockDeltas {
 public:
  /// `first_element`: index of the block's first element in the tensor. `base` and every expert
  /// have `size` elements.
  BlockDeltas(uint64_t first_element, uint64_t size, StoredElements base)
      : first_element_(first_element), size_(size), base_(base) {}
  /// Experts are added in ascending order.
  void AddExpert(ExpertIndex expert, StoredElements elements) {
    experts_.push_back(expert);
    stored_.push_back(elements);
  }

  uint64_t first_element() const { return first_element_; }
  uint64_t size() const { return size_; }
  /// Present experts, ascending. A *slot* is a position in them.
  std::span<const ExpertIndex> experts() const { return experts_; }
  const StoredElements& base() const { return base_; }
  /// The whole block of the expert at `slot`.
  const StoredElements& stored(size_t slot) const { return stored_[slot]; }
  std::span<const StoredElements> stored() const { return stored_; }
  /// D_k = W_k - W0 in float32 for elements [begin, begin + out.size()) of the block.
  void Delta(size_t slot, uint64_t begin, std::span<float> out) const {
    ComputeDelta(Part(stored_[slot], begin, out.size()), Part(base_, begin, out.size()), out);
  }

 private:
  uint64_t first_element_;
  uint64_t size_;
  StoredElements base_;
  std::vector<ExpertIndex> experts_;
  std::vector<StoredElements> stored_;
};

}  // namespace mergepipe
