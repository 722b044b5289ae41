#include "run/known_statistics.h"

#include <algorithm>

#include "mergepipe/base/text.h"

namespace mergepipe {

bool HasDelta(const PlannedTensor& tensor, size_t expert) {
  return IsFloat(tensor.dtype) && tensor.sources[expert].present && tensor.elements() > 0;
}

KnownStatistics::KnownStatistics(std::shared_ptr<Catalog> catalog, const ResolvedInputs& inputs,
                                 const Plan& matched)
    : catalog_(std::move(catalog)),
      base_holds_(!inputs.base.changed),
      tensors_(inputs.experts.size()),
      experts_(inputs.experts.size()),
      numbering_(inputs.base.record.layout, matched.options.block_size) {
  for (size_t k = 0; k < inputs.experts.size(); ++k) {
    experts_[k].id = {inputs.base.record.id, inputs.experts[k].record.id,
                      matched.options.block_size, 0};
    for (uint32_t t = 0; t < matched.tensors.size(); ++t) {
      if (HasDelta(matched.tensors[t], k)) tensors_[k].push_back(t);
    }
  }
}

Result<bool> KnownStatistics::IsExact(uint32_t expert) const {
  const std::vector<uint32_t>& needed = tensors_[expert];
  MERGEPIPE_ASSIGN_OR_RETURN(const auto there, catalog_->StatisticsTensors(experts_[expert].id));
  return std::includes(there.begin(), there.end(), needed.begin(), needed.end());
}

Result<std::shared_ptr<KnownStatistics>> KnownStatistics::Find(std::shared_ptr<Catalog> catalog,
                                                               const ResolvedInputs& inputs,
                                                               const Plan& matched) {
  std::shared_ptr<KnownStatistics> known(new KnownStatistics(std::move(catalog), inputs, matched));
  for (uint32_t k = 0; k < known->experts_.size(); ++k) {
    // Where there is nothing to know, all of it is known.
    bool exact = known->tensors_[k].empty();
    const bool held =
        known->catalog_ != nullptr && known->base_holds_ && !inputs.experts[k].changed;
    if (held && !exact) {
      MERGEPIPE_ASSIGN_OR_RETURN(exact, known->IsExact(k));
    }
    if (exact) known->experts_[k].kind = StatisticsKind::kExact;
  }
  return known;
}

Result<std::vector<BlockStatistics>> KnownStatistics::OfExpert(uint32_t expert, uint32_t tensor) {
  const Expert& known = experts_[expert];
  const bool unprobed =
      known.kind == StatisticsKind::kProbe && numbering_.Probed(tensor, known.id.stride).Empty();
  if (unprobed) return std::vector<BlockStatistics>();
  MERGEPIPE_ASSIGN_OR_RETURN(auto statistics, catalog_->ReadStatistics(known.id, tensor));
  if (statistics) return std::move(*statistics);
  return Fail(ErrorKind::kIo, "statistics of " + Quote(known.id.expert),
              "vanished from the catalog while it was used", "run the same command again");
}

Result<std::vector<BaseBlockStatistics>> KnownStatistics::OfBase(uint32_t tensor) {
  if (catalog_ == nullptr || !base_holds_) return std::vector<BaseBlockStatistics>();
  const StatisticsId& id = experts_.front().id;
  MERGEPIPE_ASSIGN_OR_RETURN(auto statistics,
                             catalog_->ReadBaseStatistics(id.base, id.block_size, tensor));
  return std::move(statistics).value_or(std::vector<BaseBlockStatistics>());
}

std::vector<uint32_t> KnownStatistics::Unknown() const {
  std::vector<uint32_t> unknown;
  for (uint32_t k = 0; k < experts_.size(); ++k) {
    if (experts_[k].kind != StatisticsKind::kExact) unknown.push_back(k);
  }
  return unknown;
}

void KnownStatistics::Expect(const std::vector<uint32_t>& experts, uint64_t stride) {
  for (const uint32_t k : experts) {
    experts_[k].kind = stride == 0 ? StatisticsKind::kExact : StatisticsKind::kProbe;
    experts_[k].id.stride = stride;
  }
}

}  // namespace mergepipe
