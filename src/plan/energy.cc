#include "plan/passes.h"

namespace mergepipe {
namespace {

// Sums in block order.
DeltaEnergy EnergyOf(const PairTable& pairs, const PlannedTensor& tensor, uint32_t t, uint32_t k) {
  DeltaEnergy energy;
  uint64_t block = 0;
  for (uint64_t pair = pairs.TensorBegin(t) + k; pair < pairs.TensorEnd(t);
       pair += pairs.experts()) {
    energy.total += pairs.energies[pair];
    if (tensor.selected[k].Contains(BlockIndex(block++))) energy.selected += pairs.energies[pair];
  }
  return energy;
}

}  // namespace

void StateEnergy(const PairTable& pairs, Plan& plan) {
  for (uint32_t t = 0; t < plan.tensors.size(); ++t) {
    PlannedTensor& tensor = plan.tensors[t];
    if (tensor.rule != TensorRule::kMerge) continue;
    for (uint32_t k = 0; k < pairs.experts(); ++k) {
      const bool known =
          tensor.sources[k].present && plan.statistics[k].kind != StatisticsKind::kNone;
      tensor.energy[k] = known ? std::optional(EnergyOf(pairs, tensor, t, k)) : std::nullopt;
    }
  }
}

std::optional<double> EnergyCovered(const Plan& plan) {
  DeltaEnergy sum;
  for (const PlannedTensor& tensor : plan.tensors) {
    for (size_t k = 0; k < tensor.energy.size(); ++k) {
      if (tensor.energy[k]) {
        sum.total += tensor.energy[k]->total;
        sum.selected += tensor.energy[k]->selected;
      } else if (tensor.rule == TensorRule::kMerge && tensor.sources[k].present) {
        return std::nullopt;
      }
    }
  }
  return sum.total > 0 ? sum.selected / sum.total : 1.0;
}

}  // namespace mergepipe
