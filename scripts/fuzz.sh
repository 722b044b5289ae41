#!/usr/bin/env bash
# Builds the libFuzzer programs with clang, AddressSanitizer and UndefinedBehaviorSanitizer, and runs each, as many at
# a time as there are cores. Exit 1 after a finding; the input that shows it is kept and named.
#
#   scripts/fuzz.sh [SECONDS_EACH=60] [NAME...]      e.g. scripts/fuzz.sh 600 plan_fuzz
#
# What they find interesting gathers in build/fuzz/corpus/NAME and is used again by the next run; the seeds in
# tests/fuzz/corpus stay as they are. FUZZ_JOBS=N runs N at a time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

seconds=${1:-60}
if ! [[ "$seconds" =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: $0 [SECONDS_EACH] [NAME...]" >&2
  exit 2
fi
shift || true
readonly build=build/fuzz seconds
jobs=${FUZZ_JOBS:-$(nproc)}

launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
mkdir -p "$build"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DMERGEPIPE_FUZZ=ON "${launcher[@]}" \
  >"$build/configure.log" 2>&1 || { cat "$build/configure.log"; exit 1; }
names=("$@")
if ((${#names[@]} == 0)); then
  for corpus in tests/fuzz/corpus/*/; do names+=("$(basename "$corpus")"); done
fi
cmake --build "$build" --parallel "$jobs" --target "${names[@]}"

# fuzz NAME: its whole log is kept; what is printed is one line, or the end of the log.
fuzz() {
  local name=$1 log=$build/$1.log new=$build/corpus/$1 findings=$build/findings
  mkdir -p "$new" "$findings"
  local status=0
  timeout -k 10 $((seconds + 120)) "$build/tests/fuzz/$name.fuzzer" -max_total_time="$seconds" -timeout=20 \
    -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$findings/$name-" \
    "$new" "tests/fuzz/corpus/$name" >"$log" 2>&1 || status=$?
  local executions
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  if ((status == 0)); then
    printf 'fuzz: %-24s %12s executions in %s s\n' "$name" "${executions:-0}" "$seconds"
    return 0
  fi
  printf 'fuzz: %-24s FAILED (exit %s) after %s executions; its log is %s\n' \
    "$name" "$status" "${executions:-?}" "$log"
  grep -aE '^==[0-9]+==ERROR|^SUMMARY|runtime error|^    #[0-9] ' "$log" | head -n 20 || true
  sed -n "s|.*Test unit written to |fuzz: the input that shows it: |p" "$log"
  return 1
}
export -f fuzz
export build seconds
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=0:detect_leaks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

status=0
printf '%s\n' "${names[@]}" | xargs -P "$jobs" -I{} bash -c 'fuzz "$1"' fuzz {} || status=1
if ((status != 0)); then
  echo "fuzz: FAILED; run an input again with: $build/tests/fuzz/NAME.fuzzer $build/findings/NAME-..."
fi
exit "$status"
