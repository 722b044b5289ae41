#pragma once

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

/// Writes a model in place of the one with its id. kInternal, before anything is written, for a
/// record that could not be read again. Call it in a transaction.
Status WriteModelRows(Connection& connection, const ModelRecord& model);

}  // namespace mergepipe
