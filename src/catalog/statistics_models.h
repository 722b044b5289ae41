#pragma once

#include "catalog/sqlite.h"
#include "mergepipe/base/error.h"
#include "mergepipe/catalog/catalog.h"

namespace mergepipe {

/// Success if every model that the batch names is registered as it was read. kInternal if the batch
/// has no record of it; kBadInput, with the model as subject, if the catalog has another one, or
/// none. Call it in the transaction that writes the batch.
Status CheckStatisticsModels(Connection& connection, const StatisticsBatch& batch);

}  // namespace mergepipe
