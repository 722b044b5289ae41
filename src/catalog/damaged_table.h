#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "catalog/sqlite.h"

namespace mergepipe {

/// A table whose rows have whole-number keys.
struct TableName {
  std::string table;
  std::string key;
  std::string id;  ///< column of what names a row, which has an index; empty if there is none
};

/// What can be told of the rows of a table that may be damaged.
struct DamagedTable {
  std::vector<int64_t> keys;  ///< ascending; of some there may be no row
  std::set<std::string> ids;  ///< that the index or the rows have
  bool complete = true;       ///< all keys are known
};

/// Looks at the table and its index from both ends. Where neither end leads, every key between is
/// a candidate, up to a limit.
DamagedTable LookAt(Connection& connection, const TableName& name);

}  // namespace mergepipe
