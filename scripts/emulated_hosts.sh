#!/usr/bin/env bash
# Runs a command on a small cluster that it emulates on this one Linux machine: hosts h1, h2, ... with their own
# names, network, /dev/shm and mounts, on one bridge; all else of the file system is shared, as on a cluster.
# Needs root (or CAP_SYS_ADMIN and CAP_NET_ADMIN), util-linux and iproute2; no containers, no ssh.
#
#   scripts/emulated_hosts.sh [--hosts N] [--on HOST COMMAND]... COMMAND...
#       makes N hosts (2), runs each --on COMMAND (a line for sh) on its host, then COMMAND beside the hosts,
#       and exits as it does. `mpirun --host h1:2,h2:2` in COMMAND starts ranks on the hosts.
#   scripts/emulated_hosts.sh --agent HOST COMMAND...
#       within COMMAND: runs a command on a host; the form in which Open MPI calls a launch agent.
#   scripts/emulated_hosts.sh --cut HOST
#       within COMMAND: takes the host's link down. What runs on it runs on, and no message goes in or out any more.
#   scripts/emulated_hosts.sh --crash HOST
#       within COMMAND: as a power failure: the link is down, and all that runs on the host is killed.
#   scripts/emulated_hosts.sh --check
#       exits 0 if this machine allows it, else says why not and exits 77.
#
# Everything lives in namespaces of its own, below one process: nothing has to be cleaned up however it ends,
# and any number of them can run at a time.
set -euo pipefail

self=$(readlink -f "${BASH_SOURCE[0]}")
readonly self net=10.77.0 unavailable=77

die() {
  echo "emulated_hosts: $1" >&2
  exit "${2:-1}"
}

check() {
  local tool why
  for tool in unshare nsenter setpriv ip; do
    command -v "$tool" >/dev/null || die "there is no '$tool' (Debian: util-linux, iproute2)" "$unavailable"
  done
  # What the hosts are made of, tried once.
  why=$(unshare --net --uts --ipc --pid --mount --fork --kill-child --mount-proc --propagation private sh -ec '
    mount -t tmpfs tmpfs /dev/shm
    hostname probe
    ip link add bridge0 type bridge
    ip link add veth0 type veth peer name veth1' 2>&1) ||
    die "no namespaces, mounts or bridges for this user here: ${why//$'\n'/; }" "$unavailable"
}

# What was sent to a host that is no longer there is given up after 13 s, not after a quarter of an hour. In the caller's network.
give_up_soon() { echo 5 2>/dev/null >/proc/sys/net/ipv4/tcp_retries2 || true; }

# On a host, in its new namespaces: sets it up, says so, and stays as the holder of the namespaces.
be_host() {
  hostname "$1"
  mount -t tmpfs -o mode=1777 tmpfs /dev/shm
  ip link set lo up
  give_up_soon
  echo ready
  exec sleep infinity
}

# start_host NUMBER: the host's first process is a child of this one, its PID goes to EMULATED_HOSTS.
start_host() {
  local name=h$1 ready pid answer=
  # The links of several hosts' mounts do not propagate: what a host mounts, it alone sees.
  exec {ready}< <(exec unshare --net --uts --ipc --mount --propagation private "$self" --be-host "$name")
  pid=$!
  read -r -t 20 -u "$ready" answer || true
  [[ "$answer" == ready ]] || die "$name did not start"
  ip link add "to-$name" type veth peer name eth0 netns "$pid"
  ip link set "to-$name" master bridge0 up
  nsenter -t "$pid" -n sh -ec "ip addr add $net.$1/24 dev eth0; ip link set eth0 up"
  export EMULATED_HOSTS="${EMULATED_HOSTS:-} $name=$pid "
}

# Names of hosts without a name server: each look-up could cost seconds otherwise.
write_names() {
  local file i
  file=$(mktemp)
  {
    echo "127.0.0.1 localhost"
    echo "$net.254 head"
    for ((i = 1; i <= $1; i++)); do echo "$net.$i h$i"; done
  } >"$file"
  mount --bind "$file" /etc/hosts
  rm "$file"
}

# By environment, so that it also holds for what COMMAND starts. Without the networks' names Open MPI tries others.
set_up_mpi() {
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
  export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp
  export OMPI_MCA_oob_tcp_if_include=$net.0/24 OMPI_MCA_btl_tcp_if_include=$net.0/24
  export OMPI_MCA_plm=rsh OMPI_MCA_plm_rsh_agent="$self --agent"
  # A host that is no longer there is missed after 5 s: Open MPI's defaults take eight minutes.
  export OMPI_MCA_oob_tcp_keepalive_time=2 OMPI_MCA_oob_tcp_keepalive_intvl=1 OMPI_MCA_oob_tcp_keepalive_probes=3
  export TMPDIR=/dev/shm # of each host alone, and a short name for sockets
}

# In the new namespaces, as their first process: when it ends, the kernel ends all others in them.
be_head() {
  local hosts=$1 commands=() i status=0
  shift
  while [[ "${1-}" == --on ]]; do
    commands+=("$2" "$3")
    shift 3
  done
  hostname head
  mount -t tmpfs -o mode=1777 tmpfs /dev/shm
  ip link set lo up
  give_up_soon
  write_names "$hosts"
  ip link add bridge0 type bridge
  ip addr add "$net.254/24" dev bridge0
  ip link set bridge0 up
  for ((i = 1; i <= hosts; i++)); do start_host "$i"; done
  set_up_mpi
  for ((i = 0; i < ${#commands[@]}; i += 2)); do
    "$self" --agent "${commands[i]}" "${commands[i + 1]}" || die "${commands[i]}: '${commands[i + 1]}' failed"
  done
  # In the background, as bash acts on signals only between commands.
  trap 'exit 143' TERM INT HUP
  "$@" <&0 &
  wait $! || status=$?
  exit "$status"
}

# The first process of a host goes to `pid`.
find_host() {
  pid=$(sed -n "s/.* $1=\([0-9]*\) .*/\1/p" <<<"${EMULATED_HOSTS:-}")
  [[ -n "$pid" ]] || die "there is no host '$1'"
}

be_agent() {
  while [[ "${1-}" == -* ]]; do shift; done
  local host=${1%%.*} status=0
  find_host "$host"
  shift
  # nsenter lands in /. The command arrives as many words with inner quotes: joined, it is a line for sh.
  nsenter -t "$pid" -n -u -i -m sh -c 'cd "$0" && exec sh -c "$1"' "$PWD" "$*" || status=$?
  # A crashed host says nothing any more: an agent like ssh waits for it.
  if ((status == 137)) && ip link show "to-$host" 2>/dev/null | grep -q 'state DOWN'; then exec sleep infinity; fi
  exit "$status"
}

# Every process in the namespaces of the host's first one; again, as one may just have started another.
crash() {
  local namespace process victims
  find_host "$1"
  namespace=$(readlink "/proc/$pid/ns/uts")
  ip link set "to-$1" down
  while :; do
    victims=()
    for process in /proc/[0-9]*; do
      if [[ "$(readlink "$process/ns/uts")" == "$namespace" ]]; then victims+=("${process#/proc/}"); fi
    done 2>/dev/null
    if ((${#victims[@]} == 0)); then return; fi
    kill -KILL "${victims[@]}" 2>/dev/null || true
  done
}

case ${1-} in
  --check)
    check
    exit 0
    ;;
  --be-host) be_host "$2" ;;
  --be-head) be_head "${@:2}" ;;
  --agent) be_agent "${@:2}" ;;
  --cut)
    ip link set "to-$2" down
    exit 0
    ;;
  --crash)
    crash "$2"
    exit 0
    ;;
esac

hosts=2
if [[ "${1-}" == --hosts ]]; then
  hosts=$2
  shift 2
fi
if (($# == 0)); then
  sed -n '2,21s/^# \{0,1\}//p' "$self" >&2
  exit 2
fi
check
# A death of this process, or of unshare, is the death of everything inside.
exec setpriv --pdeathsig KILL unshare --net --uts --ipc --pid --mount --fork --kill-child --mount-proc \
  --propagation private "$self" --be-head "$hosts" "$@"
