#pragma once

#include <string>

#include "mergepipe/manifest/manifest.h"

/// \file
/// manifest.json, schema "mergepipe.manifest/1". Canonical text as plan.json's (plan/plan_codec.h).
/// Unknown fields are ignored; another major version is refused. Limits as plan.json's. File names
/// are relative, without "..", and not the manifest's own; a tensor's experts ascend.
///
///     schema          "mergepipe.manifest/1"
///     run_id, model_id, plan_id, plan_hash, block_size
///     output          "full", or "sparse": touched blocks only (format/sparse.h)
///     base, experts   {id, fingerprint}
///     tensors         [{name, dtype, shape, rule, reason, file, blocks, touched_blocks, hash,
///                     base_hash, nonfinite: {base: [nan, inf], made: [nan, inf]},
///                     experts: [{expert, blocks: a BlockSet text, read_hash,
///                                nonfinite: [nan, inf], differs}]}]
///                     Of a sparse output, hash, base_hash and both nonfinite are over the touched
///                     blocks only, and file is "" where there are none.
///     dropped         [{expert, name, reason}]: tensors of experts that have no place in the
///                     output
///     files           [{name, size, hash}]: weight files. The hash is over that of the bytes
///                     before the tensors' data (in a sparse file: before the blocks) and those of
///                     its tensors, in offset order
///     side_files      [{name, size, hash}]: every other file of the output but the manifest
///     left_out        [{name, reason}]: files of the base that were not copied
///     bound           null or {unread, rounding, total}: the plan's bound on the distance to the
///                     full-read merge
///     io              {budget_bytes: number or null, planned_expert_bytes, probe_bytes_read,
///                     expert_bytes_read, base_bytes_read, output_bytes_written, copied_bytes,
///                     resumed_expert_bytes: of expert_bytes_read, those of earlier attempts that
///                     this one went on from, reread_bytes: expert bytes that earlier attempts
///                     read in vain, on top of the others,
///                     by_rank: [{rank, host, and the first of these counts, of the last attempt}]}
///     manifest_hash   SHA-256 of the compact canonical text without manifest_hash
///
/// Hashes but plan_hash and manifest_hash are XXH3-128, 32 hex digits.
namespace mergepipe {

/// The name of the copy in the output directory and of the file in the run folder.
inline constexpr const char* kManifestName = "manifest.json";

std::string SerializeManifest(const Manifest& manifest);
/// The manifest_hash in the text that SerializeManifest gives.
std::string ManifestHash(const Manifest& manifest);

/// Whether `text` is a manifest of this program, of whatever version and however damaged.
bool LooksLikeManifest(const std::string& text);

/// A manifest read from a file, checked before use: names are plain relative paths, sizes and
/// shapes hold together. Errors as ParsePlan's.
Result<Manifest> ParseManifest(const std::string& text, const std::string& subject);

}  // namespace mergepipe
