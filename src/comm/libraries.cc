#include "mergepipe/comm/libraries.h"

#include <mpi.h>

#include <algorithm>
#include <array>
#include <boost/version.hpp>
#include <cereal/version.hpp>
#include <string>

namespace mergepipe {
namespace {

// "Open MPI v4.1.4, package: Debian Open MPI, ...": up to the comma or the end of the line.
std::string MpiLibrary() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING + 1> text{};
  int length = 0;
  if (MPI_Get_library_version(text.data(), &length) != MPI_SUCCESS) return "unknown";
  const std::string all = text.data();
  return all.substr(0, all.find_first_of(",\n"));
}

std::string BoostVersion() {
  std::string version = BOOST_LIB_VERSION;  // "1_74"
  std::replace(version.begin(), version.end(), '_', '.');
  return version;
}

}  // namespace

std::vector<Library> CommLibraries() {
  return {
      {"MPI", MpiLibrary()},
      {"Boost", BoostVersion()},
      {"Cereal", std::to_string(CEREAL_VERSION_MAJOR) + "." + std::to_string(CEREAL_VERSION_MINOR) +
                     "." + std::to_string(CEREAL_VERSION_PATCH)}};
}

}  // namespace mergepipe
