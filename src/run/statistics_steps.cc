#include "run/statistics_steps.h"

#include <algorithm>

#include "run/known_statistics.h"

namespace mergepipe {
namespace {

// What a rank reads between two commits: enough that syncing the catalog costs little.
constexpr uint64_t kStepBytes = uint64_t{1} << 30;
// Blocks whose statistics rank 0 gathers in a step: 64 MB.
constexpr uint64_t kStepRecords = uint64_t{1} << 20;

bool Has(const std::vector<uint32_t>& tensors, uint32_t tensor) {
  return std::binary_search(tensors.begin(), tensors.end(), tensor);
}

uint64_t Records(const WantedTensor& wanted) {
  const auto experts = std::count(wanted.experts.begin(), wanted.experts.end(), true);
  return wanted.blocks.Count() * (static_cast<uint64_t>(experts) + (wanted.base ? 1 : 0));
}

bool AnyExpert(const WantedTensor& wanted) {
  return std::find(wanted.experts.begin(), wanted.experts.end(), true) != wanted.experts.end();
}

}  // namespace

StatisticsSteps::StatisticsSteps(FileSystem& files, std::shared_ptr<Catalog> catalog,
                                 const ResolvedInputs& inputs, const Plan& matched,
                                 const ScanPartitioner& partitioner, StatisticsWish wish, int ranks)
    : files_(files),
      catalog_(std::move(catalog)),
      inputs_(inputs),
      matched_(matched),
      partitioner_(partitioner),
      wish_(std::move(wish)),
      numbering_(inputs.base.record.layout, matched.options.block_size),
      step_bytes_(kStepBytes * static_cast<uint64_t>(ranks)) {}

Result<std::unique_ptr<StatisticsSteps>> StatisticsSteps::Start(
    FileSystem& files, std::shared_ptr<Catalog> catalog, const ResolvedInputs& inputs,
    const Plan& matched, const ScanPartitioner& partitioner, const StatisticsWish& wish,
    int ranks) {
  std::unique_ptr<StatisticsSteps> steps(
      new StatisticsSteps(files, std::move(catalog), inputs, matched, partitioner, wish, ranks));
  if (wish.again) MERGEPIPE_RETURN_IF_ERROR(steps->Forget());
  MERGEPIPE_RETURN_IF_ERROR(steps->FindWanted());
  return steps;
}

StatisticsId StatisticsSteps::IdOf(size_t expert) const {
  return {inputs_.base.record.id, inputs_.experts[expert].record.id, matched_.options.block_size,
          wish_.stride};
}

Status StatisticsSteps::Forget() {
  for (const uint32_t k : wish_.experts) {
    MERGEPIPE_RETURN_IF_ERROR(
        catalog_->DropStatistics(inputs_.base.record.id, inputs_.experts[k].record.id));
  }
  return {};
}

Status StatisticsSteps::FindWanted() {
  std::vector<uint32_t> of_base;
  if (wish_.stride == 0) {
    MERGEPIPE_ASSIGN_OR_RETURN(of_base, catalog_->BaseStatisticsTensors(
                                            inputs_.base.record.id, matched_.options.block_size));
  }
  std::vector<std::vector<uint32_t>> of_experts(inputs_.experts.size());
  for (const uint32_t k : wish_.experts) {
    MERGEPIPE_ASSIGN_OR_RETURN(of_experts[k], catalog_->StatisticsTensors(IdOf(k)));
  }
  for (uint32_t t = 0; t < matched_.tensors.size(); ++t) {
    WantedTensor wanted = Want(t, of_experts, of_base);
    if (!wanted.blocks.Empty() && (wanted.base || AnyExpert(wanted)))
      wanted_.push_back(std::move(wanted));
  }
  return {};
}

WantedTensor StatisticsSteps::Want(uint32_t tensor,
                                   const std::vector<std::vector<uint32_t>>& of_experts,
                                   const std::vector<uint32_t>& of_base) const {
  const PlannedTensor& planned = matched_.tensors[tensor];
  WantedTensor wanted{tensor, std::vector<bool>(inputs_.experts.size()), false, {}};
  bool has_delta = false;
  for (const uint32_t k : wish_.experts) {
    has_delta = has_delta || HasDelta(planned, k);
    wanted.experts[k] = HasDelta(planned, k) && !Has(of_experts[k], tensor);
  }
  if (!has_delta) return wanted;
  wanted.base = wish_.stride == 0 && (wish_.again || !Has(of_base, tensor));
  wanted.blocks = wish_.stride == 0 ? BlockSet::All(planned.Blocks(matched_.options.block_size))
                                    : numbering_.Probed(tensor, wish_.stride);
  return wanted;
}

std::vector<WantedTensor> StatisticsSteps::Next() {
  std::vector<WantedTensor> step;
  uint64_t bytes = 0;
  uint64_t records = 0;
  for (; next_ < wanted_.size(); ++next_) {
    bytes += partitioner_.Cost(wanted_[next_]);
    records += Records(wanted_[next_]);
    if (!step.empty() && (bytes > step_bytes_ || records > kStepRecords)) break;
    step.push_back(wanted_[next_]);
  }
  return step;
}

// A base that changed in place makes everything wrong that was taken from it.
Status StatisticsSteps::DropOthersIfBaseChanged(
    const std::vector<BaseTensorBlockStatistics>& base) {
  const std::string& id = inputs_.base.record.id;
  bool changed = false;
  for (const BaseTensorBlockStatistics& tensor : base) {
    MERGEPIPE_ASSIGN_OR_RETURN(
        const auto before,
        catalog_->ReadBaseStatistics(id, matched_.options.block_size, tensor.tensor));
    changed = changed || (before && *before != tensor.blocks);
  }
  if (!changed) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(const auto ids, catalog_->ModelIds());
  for (const std::string& expert : ids) {
    const bool is_input =
        std::any_of(inputs_.experts.begin(), inputs_.experts.end(),
                    [&](const ResolvedModel& input) { return input.record.id == expert; });
    if (!is_input) MERGEPIPE_RETURN_IF_ERROR(catalog_->DropStatistics(id, expert));
  }
  return {};
}

Status StatisticsSteps::Store(std::vector<ScannedTensor> tensors) {
  StatisticsBatch batch;
  batch.models = {&inputs_.base.record};
  batch.base = inputs_.base.record.id;
  batch.block_size = matched_.options.block_size;
  for (size_t k = 0; k < inputs_.experts.size(); ++k) {
    batch.models.push_back(&inputs_.experts[k].record);
    batch.sets.push_back({IdOf(k), {}});
  }
  for (ScannedTensor& tensor : tensors) {
    if (!tensor.base.empty()) batch.base_tensors.push_back({tensor.tensor, std::move(tensor.base)});
    for (size_t k = 0; k < tensor.experts.size(); ++k) {
      if (!tensor.experts[k].empty())
        batch.sets[k].tensors.push_back({tensor.tensor, std::move(tensor.experts[k])});
    }
  }
  std::erase_if(batch.sets, [](const auto& set) { return set.tensors.empty(); });
  // What was read just now must be what the catalog's records describe.
  MERGEPIPE_RETURN_IF_ERROR(CheckUnchanged(files_, inputs_));
  if (wish_.again) MERGEPIPE_RETURN_IF_ERROR(DropOthersIfBaseChanged(batch.base_tensors));
  return catalog_->PutStatistics(batch);
}

bool StatisticsSteps::Wants(size_t expert) const {
  return std::any_of(wanted_.begin(), wanted_.end(),
                     [&](const WantedTensor& wanted) { return wanted.experts[expert]; });
}

}  // namespace mergepipe
