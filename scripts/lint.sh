#!/usr/bin/env bash
# What can be said of the sources without running them: format, clang-tidy, shell scripts, layering.
#
#   scripts/lint.sh             all of it (configures build/ci)
#   scripts/lint.sh --no-tidy   without clang-tidy, which takes nearly all of the time
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tidy=true
case "${1-}" in
  "") ;;
  --no-tidy) tidy=false ;;
  *)
    echo "usage: $0 [--no-tidy]" >&2
    exit 2
    ;;
esac

check_format() {
  local files report
  mapfile -d '' files < <(find src include tests -type f \( -name '*.cc' -o -name '*.h' \) -print0)
  report=$(clang-format --dry-run -Werror "${files[@]}" 2>&1) && return 0
  # Which files, and the first place in each: the cure is the same for all.
  grep -E '^[^ ]+:[0-9]+:[0-9]+: error:' <<<"$report" | sort -t: -k1,1 -k2,2n -u | sort -t: -k1,1 -u |
    sed -E 's/^([^:]+:[0-9]+):.*/\1: not formatted/' || printf '%s\n' "$report"
  echo "cure: clang-format -i FILE..."
  return 1
}

# The compile commands are g++'s: clang does not know all of its warning options, and finds <omp.h> only
# in g++'s own directory (searched last, so that clang's headers win).
check_tidy() {
  cmake --preset ci >build/configure.log 2>&1 || { cat build/configure.log; return 1; }
  local root log=build/tidy.log
  root=$(printf '%s' "$PWD" | sed 's/[][\.*^$+?(){}|]/\\&/g')
  if ! run-clang-tidy -quiet -j "$(nproc)" -p build/ci \
    -extra-arg=-Wno-unknown-warning-option \
    -extra-arg="-idirafter$(g++ -print-file-name=include)" "^$root/src/.*\\.cc\$" >"$log" 2>&1; then
    # A finding in a header comes once for each source that includes it.
    sed 's/\x1b\[[0-9;]*m//g' "$log" | grep -E '^([^ ]+:[0-9]+:[0-9]+: )?(error|warning):' |
      sed "s#^$PWD/##" | sort -u || tail -n 40 "$log"
    return 1
  fi
}

check_scripts() {
  local script status=0
  local scripts=(.ci/run scripts/*.sh)
  for script in slurm/*.sh slurm/*.sbatch; do
    if [[ -f "$script" ]]; then scripts+=("$script"); fi
  done
  for script in "${scripts[@]}"; do bash -n "$script" || status=1; done
  if command -v shellcheck >/dev/null; then shellcheck --severity=warning "${scripts[@]}" || status=1; fi
  return "$status"
}

check_layering() {
  local python=/usr/bin/python3
  [[ -x "$python" ]] || python=python3
  "$python" tests/layering_test.py
}

failed=()
check() {
  local name=$1 begin=$SECONDS
  shift
  if "$@"; then
    echo "lint: $name ok ($((SECONDS - begin)) s)"
  else
    echo "lint: $name FAILED ($((SECONDS - begin)) s)"
    failed+=("$name")
  fi
}

mkdir -p build
check format check_format
check scripts check_scripts
check layering check_layering
if $tidy; then check clang-tidy check_tidy; fi
if ((${#failed[@]} > 0)); then
  echo "lint: FAILED: ${failed[*]}"
  exit 1
fi
echo "lint: all ok"
