#pragma once

#include "mergepipe/base/build_info.h"

namespace mergepipe {

/// This program, its libraries, and what it runs on. Made once.
const BuildInfo& ThisBuild();

}  // namespace mergepipe
