# shellcheck shell=bash
# Source this before mpirun on a workstation, in a container or in CI:  . scripts/mpi_env.sh
# It makes Open MPI run more ranks than there are cores, as root, without pinning. By environment and not
# by flags of mpirun, so that it also holds for ctest and for processes started without mpirun. What is
# set already stays. On a cluster leave it out: there, pinning and busy waiting are right.

# mpirun refuses to run as root unless both are set.
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT="${OMPI_ALLOW_RUN_AS_ROOT:-1}"
  export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="${OMPI_ALLOW_RUN_AS_ROOT_CONFIRM:-1}"
fi
# More ranks than cores; otherwise mpirun ends with "not enough slots".
export OMPI_MCA_rmaps_base_oversubscribe="${OMPI_MCA_rmaps_base_oversubscribe:-1}"
# No pinning: a rank's threads would share one core, and two jobs at a time the same core.
export OMPI_MCA_hwloc_base_binding_policy="${OMPI_MCA_hwloc_base_binding_policy:-none}"
# A waiting rank yields its core instead of spinning on it.
export OMPI_MCA_mpi_yield_when_idle="${OMPI_MCA_mpi_yield_when_idle:-1}"
# The plain point-to-point layer: the probing of others for fast networks costs 0.2 s at every start.
export OMPI_MCA_pml="${OMPI_MCA_pml:-ob1}"
# Open MPI looks for ssh or rsh even when all ranks are local, and fails without. Isolated does not look,
# but cannot start ranks on other machines: only where neither is there and SLURM is not the launcher.
if ! command -v ssh >/dev/null 2>&1 && ! command -v rsh >/dev/null 2>&1 &&
  [ -z "${SLURM_JOB_ID:-}" ]; then
  export OMPI_MCA_plm="${OMPI_MCA_plm:-isolated}"
fi
