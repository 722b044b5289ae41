#pragma once

#include <cstdint>

#include "catalog/sqlite.h"
#include "mergepipe/base/error.h"

namespace mergepipe {

/// "MPDB": marks a file as a catalog, whatever its name. Never changes.
inline constexpr int64_t kCatalogApplicationId = 0x4d504442;

/// The newest schema that this program knows: the number of migrations.
int64_t SchemaVersion();

/// Makes an empty database a catalog of schema `target` in one transaction. Tests make old files
/// with it.
Status CreateSchema(Connection& connection, int64_t target = SchemaVersion());

/// Refuses what is not a catalog or is newer than this program, before anything is changed.
Status CheckIsCatalog(Connection& connection);

/// Runs the migrations that the file lacks, in one transaction.
Status MigrateSchema(Connection& connection);

}  // namespace mergepipe
