#pragma once

#include <string>

#include "mergepipe/plan/plan.h"

/// \file
/// plan.json, schema "mergepipe.plan/1". The file is the canonical text (sorted keys, one space of
/// indent, shortest round-trip numbers, a newline at the end), so that any changed byte shows.
/// Unknown fields are ignored; another major version is refused. Limits: kMaxRecordBytes of text
/// (manifest/run_folder.h), kMaxBlocks (block, expert) pairs, record::kMaxDepth levels.
///
///     schema            "mergepipe.plan/1"
///     base              {id, fingerprint}: fingerprint as 32 hex digits (XXH3-128)
///     experts           [{id, fingerprint}], in command-line order
///     options           {strategy, density, weights, lambda, seed, normalize, trim_scope:
///     "tensor"|"block", scoring, top_p,
///                       budget_bytes: number or null, block_size, out_dtype: "same" or a dtype,
///                       resident_bytes, nonfinite: "error"|"allow", missing: "error"|"base",
///                       extra: "error"|"drop"}
///     tensors           in the base's file order, [{name, dtype, out_dtype, shape, rule:
///     "merge"|"base", reason, reads, compare,
///                       touched_blocks, selected: [a BlockSet text for each expert],
///                       equal: [a BlockSet text for each expert], energy: [for each expert: null,
///                       or [total, selected]], blocks_beyond_top_p, best_left_score_per_byte,
///                       sources: [for each expert: null if it lacks the tensor, else {name,
///                       dtype}]}]
///     dropped           [{expert, name, reason}]
///     statistics        [{kind: "none"|"exact"|"probe", hash}], one for each expert
///     probe_stride      0: nothing was probed
///     planned           {fingerprint_bytes, probe_bytes, compare_bytes, merge_bytes, total_bytes}
///     objective, objective_bound, objective_ratio, cutoff_score_per_byte
///     bound             null, or {unread, rounding, total}: see ErrorBound
///     plan_hash         SHA-256, 64 hex digits, of the compact canonical text (no spaces) without
///     plan_hash and plan_id plan_id           the first 16 digits of plan_hash
namespace mergepipe {

/// Text of plan.json.
std::string SerializePlan(const Plan& plan);

/// 64 hex digits; the first 16 are the plan id.
std::string PlanHash(const Plan& plan);
std::string PlanIdOf(const std::string& plan_hash);

/// A plan read from a file: data from elsewhere, checked before use. kVerification if the text is
/// not canonical or its hashes are not its own; kBadInput if it is not a plan, of another version,
/// or does not hold together. `subject` (the path) opens every problem.
Result<Plan> ParsePlan(const std::string& text, const std::string& subject);

}  // namespace mergepipe
