#include <algorithm>
#include <cmath>

#include "plan/passes.h"

namespace mergepipe {
namespace {

constexpr double kFloatRoundoff = 0x1p-24;
// Roundings of the float32 arithmetic of one element beside those of the sum over the experts:
// conversions, coefficients, the scale, the last addition.
constexpr double kOtherRoundings = 9;
// The bound is itself computed in double; so much covers its roundings by far.
constexpr double kSlack = 1 + 1e-9;

// The same below float32's normal range: half of its smallest number.
constexpr double kFloatUnderflow = 0x1p-150;

// How far one rounding to the type can move a value: relative, and absolute below its normal range.
// What is smaller than `largest` does not become infinite.
struct Rounding {
  double relative;
  double absolute;
  double largest;
};

Rounding RoundingTo(DType dtype) {
  if (dtype == DType::kBF16) return {0x1p-8, 0x1p-134, 0x1p127};
  if (dtype == DType::kF16) return {0x1p-11, 0x1p-25, 0x1p15};
  return {0, 0, 0x1p127};  // the arithmetic is float32
}

class BoundSum {
 public:
  BoundSum(const PlanInput& input, const PairTable& pairs, const Plan& plan)
      : coefficients_(*input.coefficients), pairs_(pairs), plan_(plan) {}

  void Add(uint32_t t) {
    const PlannedTensor& tensor = plan_.tensors[t];
    uint64_t block = 0;
    for (uint64_t first = pairs_.TensorBegin(t); first < pairs_.TensorEnd(t);
         first += pairs_.experts()) {
      AddBlock(tensor, BlockIndex(block++), first);
    }
  }

  // None where an element might become infinite.
  std::optional<ErrorBound> Total() const {
    if (overflow_) return std::nullopt;
    return ErrorBound{std::sqrt(unread_) * kSlack, std::sqrt(rounding_) * kSlack,
                      std::sqrt(total_) * kSlack};
  }

 private:
  // Norms of c_k D_k in one block, summed: the triangle inequality.
  struct Norms {
    double read = 0;
    double unread = 0;
  };

  Norms NormsOf(const PlannedTensor& tensor, BlockIndex block, uint64_t first) const {
    Norms norms;
    for (uint32_t k = 0; k < pairs_.experts(); ++k) {
      if (!tensor.sources[k].present) continue;
      const double norm = coefficients_[k] * std::sqrt(pairs_.energies[first + k]);
      const bool unread = !tensor.selected[k].Contains(block) && !tensor.equal[k].Contains(block);
      (unread ? norms.unread : norms.read) += norm;
    }
    return norms;
  }

  void AddBlock(const PlannedTensor& tensor, BlockIndex block, uint64_t first) {
    const Norms norms = NormsOf(tensor, block, first);
    if (norms.unread == 0) return;  // both outputs have the same bits
    const double rounding = RoundingOf(tensor, block, norms, first);
    unread_ += norms.unread * norms.unread;
    rounding_ += rounding * rounding;
    total_ += (norms.unread + rounding) * (norms.unread + rounding);
  }

  // Each of the two outputs is rounded, unless it is the base's bits.
  double RoundingOf(const PlannedTensor& tensor, BlockIndex block, const Norms& norms,
                    uint64_t first) {
    const Rounding to = RoundingTo(tensor.out_dtype);
    const double relative =
        to.relative + (kOtherRoundings + static_cast<double>(pairs_.experts())) * kFloatRoundoff;
    // Sums are scaled at the end, and so is what they lost below the normal range.
    const double underflow = (kOtherRoundings + static_cast<double>(pairs_.experts())) *
                             kFloatUnderflow *
                             std::max(1.0, std::abs(plan_.options.strategy.lambda));
    const double absolute =
        (to.absolute + underflow) *
        std::sqrt(static_cast<double>(tensor.BlockElements(block, plan_.options.block_size)));
    const double base = pairs_.base_norms[first / pairs_.experts()];
    if (base + norms.read + norms.unread >= to.largest) overflow_ = true;
    const double full = relative * (base + norms.read + norms.unread) + absolute;
    const bool is_base = norms.read == 0 && tensor.out_dtype == tensor.dtype;
    return is_base ? full : full + relative * (base + norms.read) + absolute;
  }

  const std::vector<double>& coefficients_;
  const PairTable& pairs_;
  const Plan& plan_;
  double unread_ = 0;
  double rounding_ = 0;
  double total_ = 0;
  bool overflow_ = false;
};

bool EverythingIsRead(const PairTable& pairs, const Plan& plan) {
  for (uint32_t t = 0; t < plan.tensors.size(); ++t) {
    const PlannedTensor& tensor = plan.tensors[t];
    if (tensor.rule != TensorRule::kMerge) continue;
    const uint64_t blocks = (pairs.TensorEnd(t) - pairs.TensorBegin(t)) / pairs.experts();
    for (size_t k = 0; k < tensor.sources.size(); ++k) {
      if (!tensor.sources[k].present) continue;
      if (tensor.selected[k].Count() + tensor.equal[k].Count() != blocks) return false;
    }
  }
  return true;
}

}  // namespace

void StateErrorBound(const PlanInput& input, const PairTable& pairs, Plan& plan) {
  plan.bound.reset();
  if (!input.coefficients) return;
  if (EverythingIsRead(pairs, plan)) {
    plan.bound = ErrorBound{};
    return;
  }
  if (!pairs.exact || pairs.base_norms.empty()) return;
  BoundSum sum(input, pairs, plan);
  for (uint32_t t = 0; t < plan.tensors.size(); ++t) {
    if (plan.tensors[t].rule == TensorRule::kMerge) sum.Add(t);
  }
  plan.bound = sum.Total();
}

}  // namespace mergepipe
