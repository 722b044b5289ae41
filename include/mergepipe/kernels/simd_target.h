#pragma once

#include <string>
#include <vector>

#include "mergepipe/base/build_info.h"

namespace mergepipe {

/// The instruction set that the kernels run with on this machine: "AVX2", "SSE4", "NEON", ...
std::string SimdTarget();

/// Those that this layer uses.
std::vector<Library> KernelLibraries();

}  // namespace mergepipe
