#pragma once

#include <string>

#include "mergepipe/base/hash.h"
#include "mergepipe/format/model.h"

/// \file
/// What the catalog knows, as plain data: the planner takes these types and never sees the catalog.
namespace mergepipe {

/// A registered model: where it is, and what its headers said.
struct ModelRecord {
  std::string id;
  ModelLayout layout;  ///< layout.path is absolute
  Hash128 fingerprint;
  std::string registered_at;  ///< UTC, ISO 8601
};

}  // namespace mergepipe
