# shellcheck shell=bash
# What the job scripts of this folder have in common: where the program is, and how it is started on all tasks. They
# source it; adapt it once to your cluster.

# The program and the MPI it was built with. On most clusters:
#   module load openmpi/4.1
# MERGEPIPE_BIN: the program, if it is not in PATH and not in build/release of the directory of `sbatch`.
mergepipe=${MERGEPIPE_BIN:-$(command -v mergepipe || echo "$SLURM_SUBMIT_DIR/build/release/src/mergepipe")}

# Where statistics and runs are kept, for all jobs that are submitted from the same directory. Only rank 0 opens them.
export MERGEPIPE_DB=${MERGEPIPE_DB:-$SLURM_SUBMIT_DIR/mergedb.sqlite}

# One thread a core that the task has. srun gives no more than one core to a task unless it is told again: since 22.05
# it reads SRUN_CPUS_PER_TASK, and no longer SLURM_CPUS_PER_TASK, which sbatch sets.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=$SRUN_CPUS_PER_TASK
# SLURM gives each task its cores; threads move freely within them. With true, OpenMP would leave a task's main thread
# on one core, and the program would count one core for all of its threads.
export OMP_PROC_BIND=false

# How the program is started on all tasks: srun, or mpirun (takes nodes and tasks from the job, too). To switch:
#   MERGEPIPE_LAUNCHER=mpirun sbatch slurm/merge.sbatch      or change the word here
# srun needs SLURM's PMIx plug-in (`srun --mpi=list` shows it); with mpirun it is not used. When a task dies, mpirun ends the
# others at once, and srun 10 s later (--wait), instead of leaving them waiting for it. srun could do so at once, too
# (--kill-on-bad-exit=1), but tasks that all end with the same exit code do not end in the same moment: some would be
# killed on their way out, and the job would end with 143 instead of the program's exit code.
# If tasks started by srun die now and then by SIGSEGV in MPI_Init (seen with SLURM 22.05 and Open MPI 4.1 on busy nodes):
#   export SLURM_PMIX_FENCE=ring
case ${MERGEPIPE_LAUNCHER:-srun} in
  srun) launch=(srun --mpi=pmix --kill-on-bad-exit=0 --wait=10) ;;
  mpirun)
    launch=(mpirun --bind-to none)
    # A node that is no longer there is missed after 40 s, and the job ends. Open MPI's defaults take eight minutes.
    export OMPI_MCA_oob_tcp_keepalive_time=${OMPI_MCA_oob_tcp_keepalive_time:-20}
    export OMPI_MCA_oob_tcp_keepalive_intvl=${OMPI_MCA_oob_tcp_keepalive_intvl:-5}
    export OMPI_MCA_oob_tcp_keepalive_probes=${OMPI_MCA_oob_tcp_keepalive_probes:-4}
    ;;
  *)
    echo "environment.sh: MERGEPIPE_LAUNCHER is '$MERGEPIPE_LAUNCHER'; give srun or mpirun" >&2
    exit 2
    ;;
esac
# exec_on_all_tasks OPTION...: the script becomes the launcher, which gets its signals and decides how it ends.
exec_on_all_tasks() { exec "${launch[@]}" "$mergepipe" "$@"; }
