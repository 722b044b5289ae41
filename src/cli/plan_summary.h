#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "mergepipe/plan/plan.h"

/// \file
/// A plan in numbers that a person asks for.
namespace mergepipe {

/// What is read of a part of the experts' weights.
struct SummaryRow {
  std::string name;
  uint64_t tensors = 0;
  uint64_t blocks = 0;  ///< of the output
  uint64_t touched = 0;
  uint64_t candidate_bytes = 0;  ///< one pass over the experts
  uint64_t read_bytes = 0;       ///< all passes
  DeltaEnergy energy;            ///< of what is known
  bool energy_known = true;      ///< of all

  void Add(const SummaryRow& other);
  /// Share of the squared norm of the deltas that is read: "93.1 %", or "-" if it is not known or
  /// there is nothing to share.
  std::string EnergyText() const;
};

/// 100 part / whole; 0 of nothing.
double Percent(uint64_t part, uint64_t whole);
double Percent(double part, double whole);

/// The merged tensors by expert, by layer (in order; the rest last) and by kind (the name without
/// its layer).
std::vector<SummaryRow> SummarizeExperts(const Plan& plan);
std::vector<SummaryRow> SummarizeLayers(const Plan& plan);
std::vector<SummaryRow> SummarizeKinds(const Plan& plan);

/// The three as tables for people; `read_heading` is of the column of what is (or was) read. Of
/// many layers neighbours are put together, of many kinds the smaller ones.
std::string SummaryTables(const Plan& plan, const std::string& read_heading);
nlohmann::json SummaryToJson(const Plan& plan);

/// "self_attn.q_proj.weight" for "model.layers.3.self_attn.q_proj.weight",
/// "mlp.experts.*.w1.weight" for "model.layers.3.mlp.experts.17.w1.weight": tensors of one kind,
/// whatever the layer.
std::string KindOfTensor(const std::string& name);

}  // namespace mergepipe
