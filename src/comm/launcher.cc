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

// The tasks of this process's srun. A batch script alone has SLURM_NTASKS too, but no step.
std::optional<int> TasksOfStep() {
  if (std::getenv("SLURM_STEP_ID") == nullptr) return std::nullopt;
  return IntFromEnvironment("SLURM_STEP_NUM_TASKS");
}

int TasksOfJob() {
  if (std::getenv("SLURM_STEPID") != nullptr) return 1;  // in a step, srun has given what it has
  if (const auto tasks = IntFromEnvironment("SLURM_NTASKS")) return *tasks;
  return IntFromEnvironment("SLURM_JOB_NUM_NODES").value_or(1);
}

// A launcher that this program's MPI cannot talk to: srun without PMIx, or another MPI's mpiexec.
LaunchInfo WithoutMpi() {
  LaunchInfo info;
  if (const auto tasks = TasksOfStep(); tasks.value_or(1) > 1) {
    info.size = *tasks;
    info.rank = IntFromEnvironment("SLURM_PROCID").value_or(0);
  } else if (const auto size = IntFromEnvironment("PMI_SIZE"); size.value_or(1) > 1) {
    info.size = *size;
    info.rank = IntFromEnvironment("PMI_RANK").value_or(0);
  }
  return info;
}

}  // namespace

LaunchInfo DetectLauncher() {
  // Open MPI's mpirun sets OMPI_*; srun with PMIx sets PMIX_RANK. mpirun comes first: it may itself
  // be started by srun.
  LaunchInfo info;
  if (const auto size = IntFromEnvironment("OMPI_COMM_WORLD_SIZE")) {
    info.launched = true;
    info.size = *size;
    info.rank = IntFromEnvironment("OMPI_COMM_WORLD_RANK").value_or(0);
  } else if (const auto rank = IntFromEnvironment("PMIX_RANK")) {
    const auto tasks = IntFromEnvironment("SLURM_STEP_NUM_TASKS");
    // MPI starts once in a task: not for a single one, which may be somebody's shell.
    info.launched = tasks.value_or(0) != 1;
    info.rank = *rank;
    info.size = tasks.value_or(1);
  } else {
    info = WithoutMpi();
  }
  info.job_tasks = TasksOfJob();
  return info;
}

Status CheckNotAlone(const LaunchInfo& info, int mpi_size) {
  if (info.size <= 1 || mpi_size > 1) return {};
  const std::string started = std::to_string(info.size) + " processes were started";
  if (info.launched) {
    return Fail(ErrorKind::kUsage, "launcher", started + ", but MPI finds one in each",
                "start it with the mpirun of the MPI that it was built with");
  }
  return Fail(
      ErrorKind::kUsage, "launcher", started + " that cannot find each other",
      "start it with `srun --mpi=pmix` or Open MPI's mpirun (for separate runs in one step: "
      "`env -u SLURM_STEP_ID`)");
}

std::string HostName() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown-host";
  return name.data();
}

}  // namespace mergepipe
