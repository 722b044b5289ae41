#include "run/audit_sample.h"

#include <algorithm>
#include <random>
#include <set>

namespace mergepipe {
namespace {

// The blocks of an output, numbered through.
class OutputBlocks {
 public:
  OutputBlocks(const Plan& plan, OutputForm form) : plan_(plan), form_(form) {
    for (const PlannedTensor& tensor : plan.tensors) {
      first_.push_back(count_);
      count_ += form == OutputForm::kSparse ? tensor.Touched(plan.options.block_size).Count()
                                            : tensor.Blocks(plan.options.block_size);
    }
  }

  uint64_t count() const { return count_; }
  TensorRange At(uint64_t number) const {
    const auto next = std::upper_bound(first_.begin(), first_.end(), number);
    const auto t = static_cast<uint32_t>(next - first_.begin() - 1);
    const BlockIndex block = BlockOf(t, number - first_[t]);
    BlockIndex end = block;
    return {t, block, ++end};
  }

 private:
  BlockIndex BlockOf(uint32_t tensor, uint64_t position) const {
    if (form_ == OutputForm::kFull) return BlockIndex(position);
    uint64_t before = 0;
    BlockIndex found;
    plan_.tensors[tensor]
        .Touched(plan_.options.block_size)
        .ForEachRun([&](BlockIndex begin, BlockIndex end) {
          const uint64_t size = end.value - begin.value;
          if (position >= before && position - before < size)
            found = BlockIndex(begin.value + position - before);
          before += size;
        });
    return found;
  }

  const Plan& plan_;
  OutputForm form_;
  std::vector<uint64_t> first_;  // number of each tensor's first block
  uint64_t count_ = 0;
};

// mt19937_64 is the same everywhere, the distributions of the library are not.
std::set<uint64_t> Draw(uint64_t count, uint64_t from, uint64_t seed) {
  std::set<uint64_t> drawn;
  std::mt19937_64 random(seed);
  // Floyd's: each step draws one that is new.
  for (uint64_t last = from - std::min(count, from); last < from; ++last) {
    const uint64_t number = random() % (last + 1);
    drawn.insert(drawn.contains(number) ? last : number);
  }
  return drawn;
}

}  // namespace

std::vector<TensorRange> ChooseSample(const Plan& plan, OutputForm form, bool whole_tensors,
                                      uint64_t count, uint64_t seed) {
  const OutputBlocks blocks(plan, form);
  std::vector<TensorRange> ranges;
  for (const uint64_t number : Draw(count, blocks.count(), seed)) {
    TensorRange range = blocks.At(number);
    const PlannedTensor& tensor = plan.tensors[range.tensor];
    if (whole_tensors && !tensor.Touched(plan.options.block_size).Empty()) {
      range.begin = BlockIndex(0);
      range.end = BlockIndex(tensor.Blocks(plan.options.block_size));
    }
    if (ranges.empty() || ranges.back() != range) ranges.push_back(range);
  }
  return ranges;
}

std::vector<PlanSlice> DealRanges(const std::vector<TensorRange>& ranges, int ranks) {
  std::vector<PlanSlice> slices(static_cast<size_t>(ranks));
  size_t dealt = 0;
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (i > 0 && ranges[i].tensor != ranges[i - 1].tensor) ++dealt;
    slices[dealt % slices.size()].ranges.push_back(ranges[i]);
  }
  return slices;
}

}  // namespace mergepipe
