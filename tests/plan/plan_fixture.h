#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
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

  PlanInput Input() const {
    PlanInput input;
    input.options = options;
    input.options.strategy.weights.assign(experts.size(), 1.0);
    input.base = &base;
    for (const ModelRecord& expert : experts) input.experts.push_back(&expert);
    input.observation_rounds = rounds;
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
  return family;
}

/// Float tensors of random types (the experts' may differ from the base's), some integer ones,
/// empty ones and rank-0 ones; random budget, top_p, resident bytes and rounds.
inline Family RandomFamily(std::mt19937_64& random) {
  const auto below = [&](uint64_t n) { return random() % n; };
  constexpr DType kFloats[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16};
  const size_t experts = 1 + below(4);
  std::vector<TensorSpec> base;
  for (uint64_t t = 0; t <= below(8); ++t) {
    TensorSpec tensor{"t" + std::to_string(t), kFloats[below(4)], {}};
    if (below(8) == 0) tensor.dtype = DType::kI32;
    for (uint64_t rank = below(3); rank > 0; --rank) tensor.shape.push_back(below(150));
    base.push_back(tensor);
  }
  Family family = MakeFamily(base, 0, 1 + below(below(2) == 0 ? 50 : 5000));
  for (size_t k = 0; k < experts; ++k) {
    std::vector<TensorSpec> tensors = base;
    for (TensorSpec& tensor : tensors) {
      if (IsFloat(tensor.dtype) && below(4) == 0) tensor.dtype = kFloats[below(4)];
    }
    family.experts.push_back(MakeModel("expert" + std::to_string(k), tensors));
  }
  const uint64_t all = family.base.layout.WeightBytes() * experts + 1;
  if (below(4) != 0) family.options.budget_bytes = family.Fingerprints() + below(2 * all);
  if (below(4) != 0) family.options.top_p = static_cast<double>(1 + below(100)) / 100;
  family.options.resident_bytes = below(3) == 0 ? uint64_t{1} << 40 : below(all);
  family.rounds = static_cast<int>(below(3));
  return family;
}

/// Whether `text` holds `part`; shows both if not.
inline ::testing::AssertionResult Says(const std::string& text, std::string_view part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "'" << part << "' is not in:\n" << text;
}

}  // namespace mergepipe::test
