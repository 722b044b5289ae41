#pragma once

#include <vector>

#include "mergepipe/base/build_info.h"

namespace mergepipe {

/// Those that this layer uses. MPI need not be started, and is not.
std::vector<Library> CommLibraries();

}  // namespace mergepipe
