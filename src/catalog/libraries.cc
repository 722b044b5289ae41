#include <sqlite3.h>

#include "catalog/schema.h"
#include "mergepipe/catalog/catalog.h"

namespace mergepipe {

int64_t CatalogSchemaVersion() { return SchemaVersion(); }

std::vector<Library> CatalogLibraries() { return {{"SQLite", sqlite3_libversion()}}; }

}  // namespace mergepipe
