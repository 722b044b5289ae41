#!/usr/bin/env bash
# Where the time of one merge goes: the hottest functions, and what each kind of system call cost.
#
#   scripts/profile.sh [--family DIR] [--size 0.6b] [--cold] [--top 30] [-- MERGE OPTIONS]
#
#   scripts/profile.sh -- --strategy ties --no-budget --top-p 1 --threads 2      (what it does without options)
#
# Builds with symbols and frame pointers in build/profile (or takes $MERGEPIPE_BIN as it is), and merges a demo family (DIR/base, DIR/expert_1, ...;
# build/bench/qwen3-SIZE-4, which scripts/bench.sh uses too, is made if it is not there) three times, the inputs read
# into the page cache before (--cold: put out of it; needs root): plain, for its times and memory; under a profiler;
# under strace, which slows it down: compare its seconds with each other, not with the first ones.
# The profiler: perf (linux-perf; by its clock where there are no counters, as in most virtual machines), else
# gprofng (binutils). Data stay in build/profile/data: perf report -i build/profile/data/perf.data, or
# gprofng display text -calltree build/profile/data/merge.er
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  echo "usage: $0 [--family DIR] [--size SIZE] [--cold] [--top N] [-- MERGE OPTIONS]" >&2
  exit 2
}
family='' size=0.6b cold=false top=30
while (($# > 0)); do
  case "$1" in
    --family) (($# > 1)) || usage; family=$2; shift ;;
    --size) (($# > 1)) || usage; size=$2; shift ;;
    --top) (($# > 1)) || usage; top=$2; shift ;;
    --cold) cold=true ;;
    --) shift; break ;;
    *) usage ;;
  esac
  shift
done
options=("$@")
(($# > 0)) || options=(--strategy ties --no-budget --top-p 1 --threads 2)
if $cold && [[ ! -w /proc/sys/vm/drop_caches ]]; then
  echo "$0: --cold writes to /proc/sys/vm/drop_caches; run it as root" >&2
  exit 2
fi

log() { echo "== $*" >&2; }
# quiet COMMAND...: its output only if it fails.
quiet() {
  local status=0 text
  text=$("$@" 2>&1 </dev/null) || status=$?
  if ((status != 0)); then
    echo "$0: exit $status: $*" >&2
    echo "$text" >&2
    exit 1
  fi
}

if [[ -n ${MERGEPIPE_BIN:-} ]]; then
  mergepipe=$(realpath "$MERGEPIPE_BIN")
else
  log "building build/profile"
  generator=()
  if [[ ! -e build/profile/CMakeCache.txt ]] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
  quiet cmake -S . -B build/profile "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DMERGEPIPE_TESTS=OFF \
    -DCMAKE_CXX_FLAGS="-g1 -fno-omit-frame-pointer -fno-optimize-sibling-calls"
  quiet cmake --build build/profile --parallel "$(nproc)" --target mergepipe
  mergepipe=$PWD/build/profile/src/mergepipe
fi
[[ -x $mergepipe ]] || { echo "$0: there is no program $mergepipe" >&2; exit 2; }

if [[ -z $family ]]; then
  family=build/bench/qwen3-$size-4
  if [[ ! -d $family/expert_4 ]]; then
    log "making a family of qwen3/$size with 4 experts in $family"
    quiet "$mergepipe" demo "$family" --shape qwen3 --size "$size" --experts 4
  fi
fi
inputs=("$family"/base/*.safetensors "$family"/expert_*/*.safetensors)
readonly data=$PWD/build/profile/data
rm -rf "$data"
mkdir -p "$data"
trap 'rm -rf "$data"/out "$data"/runs "$data"/db.sqlite*' EXIT
command=("$mergepipe" merge --base "$family/base" --experts "$family"/expert_* --db "$data/db.sqlite"
  --out "$data/out" --runs-dir "$data/runs" "${options[@]}")

# under COMMAND...: the merge under it, from the same start each time; what both print goes to data/log.
under() {
  rm -rf "$data"/out "$data"/runs "$data"/db.sqlite*
  sync
  if $cold; then echo 3 >/proc/sys/vm/drop_caches; else cat "${inputs[@]}" >/dev/null; fi
  local status=0
  "$@" "${command[@]}" >"$data/log" 2>&1 </dev/null || status=$?
  if ((status != 0)); then
    echo "$0: exit $status: $* ${command[*]}" >&2
    cat "$data/log" >&2
    exit 1
  fi
}

log "merging: ${options[*]}"
if [[ -x /usr/bin/time ]]; then
  under /usr/bin/time -o "$data/time" -f \
    'wall %e s, user %U s, system %S s, peak %M KiB, page faults %F major %R minor, switches %w waiting %c forced' env
  cat "$data/time"
else
  under env
fi
cat "$data/log"

# The event that perf can sample by, if it works with this kernel, which may be of another version.
perf_event() {
  command -v perf >/dev/null || return 1
  local event=cycles
  if ! perf stat -x, -e cycles true 2>&1 | grep -q '^[0-9]'; then event=cpu-clock; fi
  perf record -q -e "$event" -o "$data/try.data" true >/dev/null 2>&1 || return 1
  perf report -i "$data/try.data" --stdio >/dev/null 2>&1 || return 1
  rm -f "$data/try.data"
  echo "$event"
}

echo
if event=$(perf_event); then
  log "profiling with perf, event $event"
  under perf record -q -F 997 -g -e "$event" -o "$data/perf.data"
  echo "hottest functions (perf, $event), in per cent of all samples:"
  perf report -i "$data/perf.data" --stdio --no-children -g none --percent-limit 0.3 -w 8,20,100 2>/dev/null |
    grep -v '^#' | grep -v '^ *$' | head -n "$top" || true
elif command -v gprofng >/dev/null; then
  log "profiling with gprofng"
  under gprofng collect app -o "$data/merge.er"
  echo "hottest functions (gprofng), exclusive and inclusive seconds:"
  gprofng display text -limit "$top" -functions "$data/merge.er" 2>/dev/null
else
  echo "$0: no profiler; install linux-perf or binutils (gprofng)" >&2
fi

echo
if command -v strace >/dev/null; then
  log "tracing system calls"
  under strace -f -qq -T -s 0 -e signal=none -o "$data/strace" \
    -e trace=pread64,preadv,preadv2,read,pwrite64,pwritev,pwritev2,write,copy_file_range,fsync,fdatasync,sync_file_range,fadvise64,ftruncate,fallocate,io_uring_enter
  echo "system calls of input and output (seconds are summed over threads, and those of a traced run):"
  # A call that another thread interrupts is on two lines: the last one has result and time.
  awk '
    {
      if (match($0, /<\.\.\. [a-z0-9_]+ resumed>/)) { split(substr($0, RSTART + 5), words, " "); name = words[1] }
      else if (match($0, /^[0-9]+ +[a-z0-9_]+\(/)) { split($0, words, /[ (]+/); name = words[2] }
      else next
      if (!match($0, /= -?[0-9]+.*<[0-9.]+>$/)) next  # unfinished
      split(substr($0, RSTART + 2), result, " ")
      seconds = $0; sub(/.*</, "", seconds); sub(/>$/, "", seconds)
      calls[name]++; time[name] += seconds
      if (result[1] > 0 && name ~ /read|write|copy/) bytes[name] += result[1]
    }
    END {
      for (name in calls)
        printf "%9.3f s %9d calls %10.1f MiB %9.1f KiB a call  %s\n", time[name], calls[name], bytes[name] / 1048576,
          bytes[name] / 1024 / calls[name], name
    }' "$data/strace" | sort -rn
  rm -f "$data/strace"
else
  echo "$0: no strace; install it for the system calls" >&2
fi
