#include "bench/bench_catalog.h"

namespace mergepipe::test {
namespace {

uint32_t TensorsOf(const Family& family) {
  return static_cast<uint32_t>(family.base.layout.tensors.size());
}

Status PutModelsOf(Catalog& catalog, const Family& family) {
  std::vector<ModelRecord> models = family.experts;
  models.push_back(family.base);
  return catalog.PutModels(models);
}

Status PutExpert(Catalog& catalog, const Family& family, uint32_t expert,
                 StatisticsSource& statistics) {
  StatisticsBatch batch;
  batch.models = {&family.base, &family.experts[expert]};
  batch.sets.push_back(
      {{family.base.id, family.experts[expert].id, family.options.block_size, 0}, {}});
  for (uint32_t t = 0; t < TensorsOf(family); ++t) {
    MERGEPIPE_ASSIGN_OR_RETURN(auto blocks, statistics.OfExpert(expert, t));
    batch.sets.back().tensors.push_back({t, std::move(blocks)});
  }
  return catalog.PutStatistics(batch);
}

Status PutBase(Catalog& catalog, const Family& family, StatisticsSource& statistics) {
  StatisticsBatch batch;
  batch.models = {&family.base};
  batch.base = family.base.id;
  batch.block_size = family.options.block_size;
  for (uint32_t t = 0; t < TensorsOf(family); ++t) {
    MERGEPIPE_ASSIGN_OR_RETURN(auto blocks, statistics.OfBase(t));
    batch.base_tensors.push_back({t, std::move(blocks)});
  }
  return catalog.PutStatistics(batch);
}

}  // namespace

ResolvedInputs Unchanged(const Family& family) {
  ResolvedInputs inputs;
  inputs.base = {family.base, false};
  for (const ModelRecord& expert : family.experts) inputs.experts.push_back({expert, false});
  return inputs;
}

Status MakeBenchCatalog(const std::string& path, const Family& family,
                        StatisticsSource& statistics) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto catalog, Catalog::OpenOrCreate(path));
  MERGEPIPE_RETURN_IF_ERROR(PutModelsOf(*catalog, family));
  MERGEPIPE_RETURN_IF_ERROR(PutBase(*catalog, family, statistics));
  for (uint32_t k = 0; k < family.experts.size(); ++k)
    MERGEPIPE_RETURN_IF_ERROR(PutExpert(*catalog, family, k, statistics));
  return {};
}

Result<std::shared_ptr<KnownStatistics>> OpenBenchCatalog(const std::string& path,
                                                          const Family& family,
                                                          const PlanInput& input) {
  MERGEPIPE_ASSIGN_OR_RETURN(std::shared_ptr<Catalog> catalog, Catalog::Open(path));
  MERGEPIPE_ASSIGN_OR_RETURN(const Plan started, StartPlan(input));
  MERGEPIPE_ASSIGN_OR_RETURN(auto known,
                             KnownStatistics::Find(catalog, Unchanged(family), started));
  if (known->Unknown().empty()) return known;
  return Fail(ErrorKind::kBadInput, path, "has not the statistics of all experts",
              "remove it to have it made again");
}

Result<CatalogSize> MeasureCatalog(const std::string& path, const Family& family) {
  MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo file, PosixFileSystem().Stat(path));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto catalog, Catalog::Open(path));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto models, catalog->ModelIds());
  uint64_t blocks = 0;
  for (const TensorInfo& tensor : family.base.layout.tensors)
    blocks += CeilDivide(tensor.elements(), family.options.block_size);
  const uint64_t of_experts = blocks * (models.size() - 1);  // one model is the base
  return CatalogSize{file.size,
                     static_cast<double>(file.size) / static_cast<double>(of_experts) * 1e6};
}

}  // namespace mergepipe::test
