#include <fmt/format.h>

#include "cli/render.h"
#include "mergepipe/run/build.h"

namespace mergepipe {

std::string RenderVersion(bool verbose) {
  const BuildInfo& build = ThisBuild();
  std::string text = "mergepipe " + build.version;
  if (!verbose) return text;
  text += fmt::format("\ncommit {}\ncompiler {} ({})\nSIMD {}", build.commit, build.compiler,
                      build.build_type, build.simd);
  for (const Library& library : build.libraries)
    text += fmt::format("\n{} {}", library.name, library.version);
  return text;
}

}  // namespace mergepipe
