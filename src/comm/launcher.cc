#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "mergepipe/comm/communicator.h"

namespace mergepipe {
namespace {

std::optional<int> IntFromEnvironment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  int value = 0;
  const std::string_view view(text);
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value);
  if (error != std::errc() || end != view.data() + view.size()) return std::nullopt;
  return value;
}

}  // namespace

LaunchInfo DetectLauncher() {
  // Open MPI's mpirun sets OMPI_*; srun with PMIx sets PMIX_RANK. A batch script alone sets SLURM_*
  // too, so those only give the size.
  LaunchInfo info;
  if (const auto size = IntFromEnvironment("OMPI_COMM_WORLD_SIZE")) {
    info.launched = true;
    info.size = *size;
    info.rank = IntFromEnvironment("OMPI_COMM_WORLD_RANK").value_or(0);
  } else if (const auto rank = IntFromEnvironment("PMIX_RANK")) {
    info.launched = true;
    info.rank = *rank;
    info.size = IntFromEnvironment("SLURM_STEP_NUM_TASKS").value_or(1);
  }
  return info;
}

std::string HostName() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown-host";
  return name.data();
}

}  // namespace mergepipe
