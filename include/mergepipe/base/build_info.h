#pragma once

#include <string>
#include <vector>

namespace mergepipe {

/// A library that the program is made of.
struct Library {
  std::string name;
  std::string version;  ///< of what runs where a library tells, else of its headers

  bool operator==(const Library&) const = default;
};

/// What a program is made of: the facts that meta.json, `doctor` and `--version -v` state.
struct BuildInfo {
  std::string version;
  std::string commit;  ///< of the source, or "unknown"; "-dirty" if it was changed since
  std::string compiler;
  std::string build_type;
  std::string simd;  ///< instruction set of the kernels, chosen on this machine
  std::vector<Library> libraries;
};

/// Those that this layer uses. The other layers with libraries of their own have the same function.
std::vector<Library> BaseLibraries();

}  // namespace mergepipe
