#!/usr/bin/env bash
# Whether a merge of 20 experts in the shape of Llama-3.1-405B (12.7 million pairs of block and expert) is planned
# within 10 s and 1 GiB on one core, statistics read from a catalog; and everything up to what each of 1,024
# ranks is told to do (the plan's text and hash, the partition, the slices as they are sent) within 15 s.
#
#   scripts/bench_plan.sh
#
# Makes the catalog in a temporary directory that is removed at the end (0.9 GB; TMPDIR says where), then plans
# three times with each strategy and prints a line for each: the median time, that of the processor beside it
# (other work on the machine adds to the first, not to the second), that of everything, and the largest peak of
# memory. Exits 1 if one is over its limit.
# The program: $MERGEPIPE_PLAN_BENCH, else build/release/tests/bench/plan_bench.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($# > 0)); then
  echo "usage: $0" >&2
  exit 2
fi
readonly max_seconds=10 max_mib=1024 max_seconds_all=15 runs=3
readonly bench=${MERGEPIPE_PLAN_BENCH:-build/release/tests/bench/plan_bench}
[[ -x $bench ]] || { echo "$0: there is no program $bench; build it first (target plan_bench)" >&2; exit 2; }
export LC_ALL=C  # decimal points
one_core=()
if command -v taskset >/dev/null && taskset -c 0 true 2>/dev/null; then one_core=(taskset -c 0); fi

work=
cleanup() { if [[ -n $work ]]; then rm -rf "$work"; fi; }
trap cleanup EXIT
work=$(mktemp -d "${TMPDIR:-/tmp}/mergepipe-plan.XXXXXX")

# numbers NAME FILE...: that field of each report, ascending.
numbers() {
  local name=$1 found
  shift
  found=$(sed -n "s/^ \"$name\": \([0-9.e+-]*\),\{0,1\}\$/\1/p" "$@" | sort -g)
  if (($(wc -l <<<"$found") != $#)) || [[ -z $found ]]; then
    echo "$0: no \"$name\" in what $bench prints" >&2
    return 1
  fi
  echo "$found"
}
median() { numbers "$@" | sed -n "$(($# / 2))p"; }  # of an odd number of files
largest() { numbers "$@" | tail -n 1; }
over() { awk -v value="$1" -v limit="$2" 'BEGIN { exit !(value > limit) }'; }

status=0
# measure NAME OPTIONS...
measure() {
  local name=$1 run reports=()
  shift
  for ((run = 0; run < runs; ++run)); do
    reports+=("$work/report.$run")
    "${one_core[@]}" "$bench" --catalog "$work/catalog.sqlite" "$@" >"${reports[-1]}"
  done
  local seconds cpu mib pairs all partition slices verdict=ok
  seconds=$(median seconds_plan "${reports[@]}")
  cpu=$(median cpu_seconds_plan "${reports[@]}")
  all=$(median seconds_all "${reports[@]}")
  partition=$(median seconds_partition "${reports[@]}")
  slices=$(largest slices_mib "${reports[@]}")
  mib=$(largest peak_with_slices_mib "${reports[@]}")
  pairs=$(largest pairs "${reports[0]}")
  if over "$seconds" "$max_seconds" || over "$mib" "$max_mib" || over "$all" "$max_seconds_all"; then
    verdict="OVER the limit of $max_seconds s, $max_seconds_all s with slices and $max_mib MiB"
    status=1
  fi
  printf '%s: %d pairs in %.2f s (processor %.2f s), with slices %.2f s (partition %.2f s, %.0f MiB of slices), peak %.0f MiB: %s\n' \
    "$name" "$pairs" "$seconds" "$cpu" "$all" "$partition" "$slices" "$mib" "$verdict"
}

"$bench" --catalog "$work/catalog.sqlite" --make-only >"$work/made"
bytes=$(largest catalog_bytes "$work/made")
per_million=$(largest bytes_per_million_blocks "$work/made")
printf 'catalog: %d bytes, %.0f for a million blocks of one expert\n' "$bytes" "$per_million"
measure "ties, l2cos" --strategy ties --scoring l2cos
measure "avg with error bound, l2cos" --strategy avg --scoring l2cos
measure "ties, l2cos, sparse output" --strategy ties --scoring l2cos --sparse
exit "$status"
