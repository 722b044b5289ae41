#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "catalog/sqlite.h"
#include "mergepipe/base/error.h"

namespace mergepipe {

/// Whether there is a file that may be a catalog. kBadInput for what cannot be one: a directory, a
/// device, an empty file, a dangling link.
Result<bool> CatalogFileExists(const std::string& path);

/// Makes a new catalog that appears complete or not at all. Success also if another process made
/// one first: that one stays.
Status CreateCatalogFile(const std::string& path, std::chrono::milliseconds busy_timeout);

/// Opens an existing file, checks that it is a catalog, sets the connection up and migrates the
/// schema.
Result<std::unique_ptr<Connection>> OpenCatalogFile(const std::string& path,
                                                    std::chrono::milliseconds busy_timeout);

/// Opens an existing file to read what a damaged one still has. Nothing is read yet.
Result<std::unique_ptr<Connection>> OpenDamagedFile(const std::string& path,
                                                    std::chrono::milliseconds busy_timeout);

}  // namespace mergepipe
