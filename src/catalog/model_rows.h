#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "catalog/sqlite.h"
#include "mergepipe/base/error.h"
#include "mergepipe/catalog/catalog.h"

namespace mergepipe {

enum class ModelKey { kId, kPath };

/// The model with that id, or the one put last of those with that path. Call it in a transaction.
Result<std::optional<ModelRecord>> ReadModelRows(Connection& connection, ModelKey key,
                                                 const std::string& value);

/// The model in the row with that key, whatever the indexes say; to read damaged files.
Result<std::optional<ModelRecord>> ReadModelAt(Connection& connection, int64_t key);

/// Whether nothing says that one model's weights are not the other's: as LooksUnchanged, and the
/// same fingerprint.
bool SameWeights(const ModelRecord& a, const ModelRecord& b);

/// Writes a model in place of the one with its id. Before anything is written: kInternal for a
/// record that could not be read again; kBadInput, with the model as subject, if the id is that of
/// a model with another path (a damaged one gives its id up). Call it in a transaction.
Status WriteModelRows(Connection& connection, const ModelRecord& model);

}  // namespace mergepipe
