#pragma once

#include <string>

#include "mergepipe/base/error.h"

/// \file
/// What a directory of the real file system can do, found out by trying.
namespace mergepipe {

struct DirectoryAbilities {
  bool locks = false;            ///< a second lock on a locked file is refused
  bool spares_targets = false;   ///< a rename can refuse to replace (RENAME_NOREPLACE)
  bool exchanges_names = false;  ///< two names can change places at once (RENAME_EXCHANGE)
  bool syncs = false;            ///< a directory can be synced
};

/// Tries it all in a hidden directory of `directory`, which is removed again. kIo if this user
/// cannot write there.
Result<DirectoryAbilities> ProbeDirectory(const std::string& directory);

/// Whether some process holds a FileSystem::Lock on `path`. Takes no lock and makes no file: nobody
/// is disturbed. False if there is nothing at `path`.
Result<bool> IsLocked(const std::string& path);

}  // namespace mergepipe
