#!/usr/bin/env bash
# Starts a private SLURM (controller, two nodes, munge) on this machine, runs the job scripts of slurm/ on it and
# checks what they leave. Needs root and namespaces, as its nodes are emulated hosts; /etc/slurm stays untouched, and all
# of it is gone at the end.
#
#   scripts/slurm_smoke.sh          exits 0 if everything held, 77 (and says why) where it cannot run, else 1
#   scripts/slurm_smoke.sh --crash  only this: nodes crash under a merge, and the job is requeued to others
#
# MERGEPIPE_BIN: the program [build/release/src/mergepipe]. SLURM_SMOKE_KEEP=1 keeps the working directory.
# MERGEPIPE_SKIP_DEPS=1 installs nothing.
set -euo pipefail

self=$(readlink -f "${BASH_SOURCE[0]}")
root=$(dirname "$(dirname "$self")")
readonly self root unavailable=77
export nodes=${nodes:-2} crash=${crash:-false}

# die WHY [EXIT_CODE]
die() {
  echo "slurm_smoke: $1" >&2
  exit "${2:-1}"
}
say() { echo "== $*"; }

# --------------------------------------------------------------------------------------- the private cluster

write_config() {
  local i
  cat <<END
ClusterName=smoke
SlurmctldHost=head
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$work/run/munge.sock
CredType=cred/munge
StateSaveLocation=$work/state
SlurmctldPidFile=$work/run/slurmctld.pid
SlurmctldLogFile=$work/log/slurmctld.log
SlurmdSpoolDir=$work/spool/%n
SlurmdPidFile=$work/run/slurmd.%n.pid
SlurmdLogFile=$work/log/slurmd.%n.log
# For each node apart: the PMIx plug-in makes a directory there that must not exist.
TmpFS=$work/tmp/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=1
# Nodes may claim more than this machine has.
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
WaitTime=10
MinJobAge=300
PartitionName=all Nodes=ALL Default=YES MaxTime=60 DefaultTime=10 State=UP
END
  # A node that does not answer for so long has failed; by default after five minutes.
  if $crash; then echo "SlurmdTimeout=15"; fi
  for ((i = 1; i <= nodes; i++)); do
    echo "NodeName=h$i CPUs=2 RealMemory=2000 State=UNKNOWN"
  done
}

# All daemons go to the background by themselves and end with the namespaces.
start_cluster() {
  local i
  mkdir -p "$work"/{run,state,log}
  chmod 755 "$work" "$work/run"
  write_config >"$SLURM_CONF"
  echo "CgroupAutomount=no" >"$work/cgroup.conf"
  mungekey -c -k "$work/munge.key"
  munged --key-file="$work/munge.key" --socket="$work/run/munge.sock" --pid-file="$work/run/munged.pid" \
    --log-file="$work/log/munged.log" --seed-file="$work/run/munged.seed"
  slurmctld -f "$SLURM_CONF" -i
  for ((i = 1; i <= nodes; i++)); do
    mkdir -p "$work/spool/h$i" "$work/tmp/h$i"
    "$root/scripts/emulated_hosts.sh" --agent "h$i" slurmd -N "h$i" -f "$SLURM_CONF"
  done
  for ((i = 0; i < 300; i++)); do
    if [[ "$(sinfo -h -N -o %T 2>/dev/null | grep -c -x idle)" == "$nodes" ]]; then return; fi
    sleep 0.1
  done
  tail -n 20 "$work"/log/*.log >&2
  die "FAILED: the nodes did not become idle"
}

# ------------------------------------------------------------------------------------------------ the checks

# submit NAME SCRIPT [OPTION...]: a job of two nodes with two tasks each; its number goes to `job`, the name of its
# output to `log`.
submit() {
  log=$work/$1.log
  job=$(sbatch --parsable --output="$log" --nodes=2 --ntasks-per-node=2 --cpus-per-task=1 --time=5 "${@:2}")
}

state_of() { scontrol --oneliner show job "$job" | sed 's/.* JobState=\([A-Z]*\).*/\1/'; }
field_of() { scontrol --oneliner show job "$job" | sed -n "s/.* $1=\([^ ]*\).*/\1/p"; }

# await STATE...: until the job is in one of them; the one it is in goes to `state`.
await() {
  local i wanted
  for ((i = 0; i < 1200; i++)); do
    state=$(state_of)
    for wanted in "$@"; do
      if [[ "$state" == "$wanted" ]]; then return; fi
    done
    sleep 0.1
  done
  fail "job $job is $state after two minutes, not $*"
}

fail() {
  echo "--- $log" >&2
  cat "$log" >&2 || true
  tail -n 20 "$work"/log/slurm*.log >&2
  die "FAILED: $1"
}

# expect STATE EXIT_CODE: how the job must have ended.
expect() {
  await COMPLETED FAILED CANCELLED TIMEOUT NODE_FAIL
  [[ "$state" == "$1" && "$(field_of ExitCode)" == "$2" ]] ||
    fail "job $job ended as $state with $(field_of ExitCode), expected $1 with $2"
}

expect_line() { grep -q -- "$1" "$log" || fail "the output of job $job has no line '$1'"; }

# The shipped scripts, with their two lines changed as a user would change them.
edit_scripts() {
  mkdir "$work/slurm"
  cp "$root"/slurm/* "$work/slurm"
  sed -i -e "s#^models=.*#models=(--base $work/base --experts $work/expert_1 $work/expert_2)#" \
    -e "s#^out=.*#out=\${OUT:-$work/merged}#" "$work"/slurm/merge*.sbatch
  sed -i -e "s#^base=.*#base=$work/base#" -e "s#^experts=.*#experts=($work/expert_1 $work/expert_2)#" \
    "$work/slurm/analyze.sbatch"
}

# The same files with the same bytes, but for the manifest, which names the run.
check_output() {
  local file
  "$MERGEPIPE_BIN" verify "$1" --db "$work/mergedb.sqlite" >"$work/verify.log" 2>&1 ||
    { cat "$work/verify.log" >&2; fail "$1 does not verify"; }
  diff <(cd "$1" && find . -type f | sort) <(cd "$work/alone" && find . -type f | sort) >&2 ||
    fail "$1 has other files than the output of one process"
  while read -r file; do
    cmp "$1/$file" "$work/alone/$file" >&2 || fail "$1/$file differs from the output of one process"
  done < <(cd "$work/alone" && find . -type f ! -name manifest.json)
}

merge_options=(--strategy ties --no-budget --top-p 1)

check_merge() {
  say "merge.sbatch with srun"
  submit merge slurm/merge.sbatch "${merge_options[@]}"
  expect COMPLETED 0:0
  expect_line '^mergepipe: 4 ranks on 2 hosts (h1, h2): 1 thread each'
  expect_line '^\[OK\] merged'
  check_output "$work/merged"
}

check_mpirun() {
  say "merge.sbatch with mpirun"
  OUT=$work/by_mpirun MERGEPIPE_LAUNCHER=mpirun submit mpirun slurm/merge.sbatch "${merge_options[@]}"
  expect COMPLETED 0:0
  expect_line '^mergepipe: 4 ranks on 2 hosts (h1, h2): 1 thread each'
  check_output "$work/by_mpirun"
}

check_analyze() {
  say "analyze.sbatch"
  submit analyze slurm/analyze.sbatch
  expect COMPLETED 0:0
  expect_line '^mergepipe: 4 ranks on 2 hosts'
  # Nothing is left to be read, so a plan from the catalog alone is possible.
  "$MERGEPIPE_BIN" plan --db "$work/mergedb.sqlite" --base "$work/base" --experts "$work/expert_1" \
    "$work/expert_2" --analyze none >"$work/plan.log" 2>&1 || { cat "$work/plan.log" >&2; fail "no statistics"; }
}

check_refusals() {
  say "srun without PMIx, and a process alone in a job of four tasks"
  local merge=("$MERGEPIPE_BIN" merge --base "$work/base" --experts "$work/expert_1" --out "$work/refused")
  local plug_in
  for plug_in in none pmi2; do
    log=$work/$plug_in.log status=0
    srun --mpi="$plug_in" --nodes=2 --ntasks=4 "${merge[@]}" >"$log" 2>&1 || status=$?
    [[ $status == 2 && "$(grep -c '^mergepipe: error: ' "$log")" == 1 && ! -e "$work/refused" ]] ||
      fail "srun --mpi=$plug_in ended with $status, expected one line and 2"
    expect_line 'srun --mpi=pmix'
  done
  log=$work/alone_in_job.log
  salloc --nodes=2 --ntasks=4 "${merge[@]}" --db "$work/other.sqlite" >"$log" 2>&1 || fail "salloc"
  expect_line '^mergepipe: warning: the job has room for 4 tasks'
}

# A stand-in for the program of which one task dies while the others wait for it.
check_dead_task() {
  local launcher begin
  cat >"$work/mortal" <<'END'
#!/bin/sh
if [ "${OMPI_COMM_WORLD_RANK:-$SLURM_PROCID}" = 2 ]; then kill -9 $$; fi
exec sleep 300
END
  chmod +x "$work/mortal"
  for launcher in srun mpirun; do
    say "merge.sbatch with $launcher, a task is killed"
    MERGEPIPE_BIN=$work/mortal MERGEPIPE_LAUNCHER=$launcher submit "dead_$launcher" slurm/merge.sbatch
    await RUNNING FAILED
    begin=$SECONDS
    await FAILED
    ((SECONDS - begin <= 20)) || fail "the others ended only $((SECONDS - begin)) s later"
  done
}

# A stand-in for the program in `slurm/merge_requeue.sbatch`: waits for USR1 and ends with 75 the first time, and
# becomes the program when the job was put into the queue again.
write_interruptible() {
  cat >"$work/interruptible" <<END
#!/bin/sh
if [ "\${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then exec "$MERGEPIPE_BIN" "\$@"; fi
trap 'exit 75' USR1
echo "task \$SLURM_PROCID waits"
while :; do sleep 0.1; done
END
  chmod +x "$work/interruptible"
}

# SLURM lets a job wait for two minutes. At once would be too soon: a node refuses a job that it ended in this second.
start_again() { scontrol update JobId="$job" StartTime=now+3; }

signal_batch() { scancel --signal=USR1 --batch "$job"; }

await_line() {
  local i
  for ((i = 0; i < 1500; i++)); do
    if [[ "$(grep -c -- "$1" "$log" 2>/dev/null)" -ge "$2" ]]; then return; fi
    sleep 0.02
  done
  fail "the output of job $job has not $2 lines '$1' after 30 s"
}

check_requeue() {
  say "merge_requeue.sbatch, not interrupted"
  OUT=$work/requeue submit requeue slurm/merge_requeue.sbatch "${merge_options[@]}"
  expect COMPLETED 0:0
  check_output "$work/requeue"

  say "merge_requeue.sbatch, interrupted by USR1: a program that can go on is put into the queue again"
  OUT=$work/requeued MERGEPIPE_BIN=$work/interruptible submit requeued slurm/merge_requeue.sbatch \
    "${merge_options[@]}"
  await RUNNING
  await_line '^task . waits' 4
  signal_batch
  await PENDING
  expect_line '^merge_requeue: interrupted; back into the queue'
  start_again
  expect COMPLETED 0:0
  expect_line '^merge_requeue: .* restart 1,'
  check_output "$work/requeued"
}

# The program itself, interrupted while it merges: whichever way the script says it goes must be the way it goes. A merge
# may be done before the signal arrives: then once more.
check_interrupted() {
  local attempt out
  for attempt in 1 2 3 4 5 6; do
    say "merge_requeue.sbatch, the merge interrupted by USR1"
    out=$work/interrupted_$attempt
    OUT=$out submit "interrupted_$attempt" slurm/merge_requeue.sbatch "${merge_options[@]}"
    await_line '^mergepipe: 4 ranks on 2 hosts' 1
    signal_batch || true # there is no job any more to be signalled
    await PENDING FAILED COMPLETED CANCELLED
    if [[ "$state" == COMPLETED ]]; then continue; fi
    expect_line '^merge_requeue: USR1 at .*, passing it on'
    check_what_was_said "$out"
    return
  done
  fail "six merges were done before the signal arrived"
}

# check_what_was_said OUT: after the interruption, by the state of the job.
check_what_was_said() {
  if [[ "$state" == PENDING ]]; then
    expect_line '^merge_requeue: interrupted; back into the queue'
    start_again
    expect COMPLETED 0:0
    check_output "$1"
    say "... it was put into the queue again, and finished"
    return
  fi
  [[ "$state" == FAILED ]] || fail "the interrupted job is $state"
  expect_line '^merge_requeue: the merge ended with exit code [1-9]'
  if grep -q 'ended with exit code 75$' "$log"; then fail "interrupted with 75, but not put into the queue again"; fi
  [[ ! -e "$1" ]] || fail "there is an output, although the merge was interrupted"
  say "... it was ended by the signal, and not put into the queue again; no output"
}

# What the crashed merges work on: large enough that they are in the middle of it for a while.
make_large_family() {
  "$MERGEPIPE_BIN" demo "$work/large" --size small --dtype f32 --experts 4 >"$work/demo_large.log" 2>&1
  large=(--base "$work/large/base" --experts "$work"/large/expert_*)
  "$MERGEPIPE_BIN" merge -q "${large[@]}" --out "$work/alone" --db "$work/alone.sqlite" --runs-dir "$work/runs_alone" \
    --threads 1 "${merge_options[@]}" >"$work/alone.log"
  sed -i -e "s#^models=.*#models=(${large[*]})#" "$work"/slurm/merge*.sbatch
}

# crash_under_merge NAME first|last: submits a merge, and crashes that one of its two nodes in the middle of it. The job script
# itself runs on the first one. The node goes to `node`.
crash_under_merge() {
  local nodes_of_job
  say "merge_requeue.sbatch, its $2 node crashes"
  OUT=$work/$1 submit "$1" slurm/merge_requeue.sbatch "${merge_options[@]}"
  await RUNNING
  mapfile -t nodes_of_job < <(scontrol show hostnames "$(field_of NodeList)")
  node=${nodes_of_job[0]}
  if [[ "$2" == last ]]; then node=${nodes_of_job[-1]}; fi
  until compgen -G "$work/.$1.mergepipe-*" >/dev/null; do
    [[ "$(state_of)" == RUNNING ]] || fail "the merge ended before $node could crash"
  done
  "$root/scripts/emulated_hosts.sh" --crash "$node"
  [[ ! -e "$work/$1" ]] || fail "the merge was done before $node crashed"
}

# expect_requeued NAME NODE: SLURM misses the node, ends the job on the other one, and puts it into the queue again.
expect_requeued() {
  await PENDING COMPLETED FAILED CANCELLED NODE_FAIL
  [[ "$state" == PENDING ]] || fail "the job is $state after $2 crashed, not in the queue again"
  [[ ! -e "$work/$1" ]] || fail "there is an output of a merge whose node crashed"
}

# expect_finished NAME NODE: without the node, and with the right bytes.
expect_finished() {
  local nodes_of_job
  start_again
  expect COMPLETED 0:0
  expect_line '^merge_requeue: .* restart 1,'
  nodes_of_job=$(field_of NodeList)
  if scontrol show hostnames "$nodes_of_job" | grep -qx "$2"; then fail "it ran on $2 again"; fi
  check_output "$work/$1"
  say "... after $2 had crashed it was finished on $nodes_of_job"
}

# Two merges at a time, on two of four nodes each: it takes half a minute until SLURM misses a node.
check_crashes() {
  local name node begin=$SECONDS
  local -A jobs=() crashed=()
  for name in last first; do
    crash_under_merge "$name" "$name"
    jobs[$name]=$job crashed[$name]=$node
  done
  for name in last first; do
    job=${jobs[$name]} log=$work/$name.log
    expect_requeued "$name" "${crashed[$name]}"
    say "... back in the queue after $((SECONDS - begin)) s"
  done
  for name in last first; do
    job=${jobs[$name]} log=$work/$name.log
    expect_finished "$name" "${crashed[$name]}"
  done
}

run_checks() {
  start_cluster
  edit_scripts
  if $crash; then
    make_large_family
    check_crashes
    return
  fi
  write_interruptible
  "$MERGEPIPE_BIN" demo "$work" --size small --experts 2 >"$work/demo.log" 2>&1
  "$MERGEPIPE_BIN" merge -q --base "$work/base" --experts "$work/expert_1" "$work/expert_2" --out "$work/alone" \
    --db "$work/alone.sqlite" --runs-dir "$work/runs_alone" --threads 1 "${merge_options[@]}" >"$work/alone.log"
  check_refusals
  check_merge
  check_mpirun
  check_requeue
  check_interrupted
  check_dead_task
  check_analyze
}

run_inside() {
  cd "$work"
  # mpirun takes its hosts from SLURM, not from the agent of the emulated hosts.
  unset OMPI_MCA_plm OMPI_MCA_plm_rsh_agent
  # With SLURM's default, one start in a hundred on a busy machine let a task leave MPI_Init before the others were
  # ready for its messages: they died there by SIGSEGV. None in 450 with the ring.
  export SLURM_PMIX_FENCE=ring
  say "a private SLURM with $nodes nodes in $work"
  run_checks
  echo "slurm_smoke: all held ($SECONDS s)"
}

if [[ "${1-}" == --inside ]]; then
  run_inside
  exit 0
fi

# ---------------------------------------------------------------------------------------------- from outside

if [[ "${1-}" == --crash ]]; then
  crash=true nodes=4
  shift
fi
if (($# > 0)); then
  sed -n '2,11s/^# \{0,1\}//p' "$self" >&2
  exit 2
fi
MERGEPIPE_BIN=$(readlink -f "${MERGEPIPE_BIN:-$root/build/release/src/mergepipe}")
[[ -x "$MERGEPIPE_BIN" ]] || die "there is no $MERGEPIPE_BIN; build it, or set MERGEPIPE_BIN"
"$root/scripts/emulated_hosts.sh" --check || die "cannot run here (see above)" "$unavailable"
"$root/scripts/install_deps.sh" --cluster >&2 || die "cannot run here: SLURM is missing (see above)" "$unavailable"
for tool in slurmctld slurmd munged mungekey sbatch srun mpirun; do
  command -v "$tool" >/dev/null || die "cannot run here: there is no '$tool'" "$unavailable"
done
work=$(mktemp -d "${TMPDIR:-/tmp}/slurm_smoke.XXXXXX")
trap '[[ -n "${SLURM_SMOKE_KEEP-}" ]] || rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP
export MERGEPIPE_BIN work SLURM_CONF=$work/slurm.conf
status=0
# In the background, as bash acts on signals only between commands.
"$root/scripts/emulated_hosts.sh" --hosts "$nodes" "$self" --inside &
wait $! || status=$?
exit "$status"
