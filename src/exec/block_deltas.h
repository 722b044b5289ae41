#pragma once

#include <vector>

#include "mergepipe/base/dtype.h"
#include "mergepipe/strategy/strategy.h"

namespace mergepipe {

/// A block of stored elements.
struct StoredBlock {
  DType dtype = DType::kF32;
  std::span<const std::byte> bytes;
};

/// BlockDeltas over stored bytes of the base and of the experts that are present.
class StoredBlockDeltas final : public BlockDeltas {
 public:
  StoredBlockDeltas(uint64_t first_element, uint64_t size, StoredBlock base)
      : first_element_(first_element), size_(size), base_(base) {}
  /// Experts are added in ascending order.
  void AddExpert(ExpertIndex expert, StoredBlock block);

  uint64_t first_element() const override { return first_element_; }
  uint64_t size() const override { return size_; }
  std::span<const ExpertIndex> experts() const override { return experts_; }
  void Delta(size_t slot, uint64_t begin, std::span<float> out) const override;

 private:
  uint64_t first_element_;
  uint64_t size_;
  StoredBlock base_;
  std::vector<ExpertIndex> experts_;
  std::vector<StoredBlock> blocks_;
};

}  // namespace mergepipe
