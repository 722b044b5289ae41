#include "mergepipe/run/build.h"

#include "mergepipe/catalog/catalog.h"
#include "mergepipe/comm/libraries.h"
#include "mergepipe/kernels/simd_target.h"
#include "mergepipe/manifest/run_folder.h"

namespace mergepipe {
namespace {

BuildInfo Describe() {
  BuildInfo build;
  build.version = MERGEPIPE_VERSION;
  build.commit = MERGEPIPE_COMMIT;
  build.compiler = MERGEPIPE_COMPILER;
  build.build_type = MERGEPIPE_BUILD_TYPE;
  build.simd = SimdTarget();
  for (const auto& libraries : {CommLibraries(), CatalogLibraries(), BaseLibraries(),
                                KernelLibraries(), ManifestLibraries()}) {
    build.libraries.insert(build.libraries.end(), libraries.begin(), libraries.end());
  }
  build.libraries.push_back({"CLI11", MERGEPIPE_CLI11_VERSION});
  return build;
}

}  // namespace

const BuildInfo& ThisBuild() {
  static const BuildInfo kBuild = Describe();
  return kBuild;
}

}  // namespace mergepipe
