#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mergepipe/plan/planner.h"

/// \file
/// Made-up models: the planner sees headers only, so no file is needed.
namespace mergepipe::test {

struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;
};

inline ModelRecord MakeModel(const std::string& id, const std::vector<TensorSpec>& tensors,
                             bool tied = false) {
  ModelRecord model;
  model.id = id;
  model.fingerprint = HashText(id);
  model.registered_at = "2026-02-03T10:15:00Z";
  model.layout.path = model.layout.directory = "/models/" + id;
  model.layout.config = {.present = true, .tie_word_embeddings = tied, .quantization = {}};
  ModelFile file;
  file.name = "model.safetensors";
  file.data_begin = 4096;
  uint64_t offset = file.data_begin;
  for (const TensorSpec& tensor : tensors) {
    model.layout.tensors.push_back({tensor.name, tensor.dtype, tensor.shape, 0, offset});
    offset += model.layout.tensors.back().bytes();
  }
  file.info = {FileKind::kRegular, offset, 1'700'000'000, 7, 1};
  model.layout.files = {file};
  return model;
}

/// A base, its experts and the options, and the PlanInput that points to them.
struct Family {
  ModelRecord base;
  std::vector<ModelRecord> experts;
  PlanOptions options;
  int rounds = 0;

  PlanInput Input(StatisticsSource* statistics = nullptr) const {
    PlanInput input;
    input.options = options;
    if (input.options.strategy.weights.empty())
      input.options.strategy.weights.assign(experts.size(), 1.0);
    input.base = &base;
    for (const ModelRecord& expert : experts) input.experts.push_back(&expert);
    input.observation_rounds = rounds;
    input.statistics = statistics;
    return input;
  }
  Result<Plan> MakePlan() const { return mergepipe::MakePlan(Input()); }
  /// What fingerprints of the experts read.
  uint64_t Fingerprints() const {
    uint64_t bytes = 0;
    for (const ModelRecord& expert : experts) bytes += FingerprintBytes(expert.layout);
    return bytes;
  }
};

/// `experts` models with the base's tensors. Everything may be touched, without a budget.
inline Family MakeFamily(const std::vector<TensorSpec>& tensors, size_t experts,
                         uint64_t block_size) {
  Family family;
  family.base = MakeModel("base", tensors);
  for (size_t k = 0; k < experts; ++k) {
    family.experts.push_back(MakeModel("expert" + std::to_string(k), tensors));
  }
  family.options.block_size = block_size;
  family.options.top_p = 1;
  family.options.scoring = "uniform";
  return family;
}

}  // namespace mergepipe::test
