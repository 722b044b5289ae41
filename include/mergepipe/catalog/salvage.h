#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mergepipe/base/error.h"
#include "mergepipe/catalog/catalog.h"

namespace mergepipe {

/// What could be read from a damaged catalog.
struct Salvage {
  std::vector<std::string> models;  ///< their ids
  std::vector<std::string> plans;   ///< likewise
  std::vector<std::string> runs;    ///< likewise
  uint64_t statistics = 0;          ///< tensors whose statistics were read, over all sets
  /// What is known to have been there, or may have been: "model 'code'". Damage can hide more.
  std::vector<std::string> lost;
  uint64_t lost_models = 0;  ///< entries of `lost` that tell of models
};

/// A damaged catalog that nobody else writes to as long as this exists. For one thread.
class DamagedCatalog {
 public:
  enum class Purpose {
    kLook,     ///< others may read it
    kReplace,  ///< a lock keeps writers away, so that nothing is lost between reading and replacing
  };

  /// Refused, as by Catalog::Open: what is not a catalog or is of a newer schema (kBadInput), and
  /// one that is locked (kIo).
  static Result<std::unique_ptr<DamagedCatalog>> Open(const std::string& path, Purpose purpose);
  virtual ~DamagedCatalog() = default;

  /// Puts every record that can be read and whose checksum holds into `into`, in the order in which
  /// they were put; only looks for them if `into` is null. What cannot be read is skipped: errors
  /// are those of `into`.
  virtual Result<Salvage> CopyTo(Catalog* into) = 0;
};

}  // namespace mergepipe
