#!/usr/bin/env bash
# Everything that must hold before a change goes in; unattended, plain output, exit 0 only if all passed.
#
#   scripts/test.sh           build with warnings as errors, lint, all tests, unit and MPI tests sanitized, each fuzzer
#                             for a short while
#   scripts/test.sh --quick   without clang-tidy, the sanitized build and the fuzzers
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

quick=false
case "${1-}" in
  "") ;;
  --quick) quick=true ;;
  *)
    echo "usage: $0 [--quick]" >&2
    exit 2
    ;;
esac
. scripts/mpi_env.sh
jobs=$(nproc)
readonly jobs

failed=()
timings=()
# step NAME COMMAND...: runs it and goes on after a failure, so that one run shows everything.
step() {
  local name=$1 begin=$SECONDS status=0
  shift
  printf '\n=== %s\n' "$name"
  "$@" || status=$?
  local result=ok
  if ((status != 0)); then
    result="FAILED (exit $status)"
    failed+=("$name")
  fi
  timings+=("$(printf '%5d s  %-24s %s' $((SECONDS - begin)) "$name" "$result")")
  return "$status"
}

finish() {
  ((${#failed[@]} == 0)) || python3 scripts/failed_tests.py build/*/junit-*.xml || true
  printf '\n=== summary\n'
  printf '%s\n' "${timings[@]}"
  if ((${#failed[@]} > 0)); then
    local names
    names=$(printf '%s, ' "${failed[@]}")
    echo "TESTS FAILED after $SECONDS s: ${names%, }"
    exit 1
  fi
  echo "ALL TESTS PASSED in $SECONDS s"
  exit 0
}

build() {
  cmake --preset "$1" -DMERGEPIPE_TESTS=ON >build/configure.log 2>&1 ||
    { cat build/configure.log; return 1; }
  cmake --build --preset "$1" --parallel "$jobs"
}
# run_ctest NAME OPTIONS...: what failed is told again at the end, from NAME's results in the build's directory.
run_ctest() {
  local results=junit-$1.xml
  shift
  ctest --no-tests=error --output-on-failure --output-junit "$results" --parallel "$jobs" "$@"
}

# The sanitized programs run the tests of the parts; the end-to-end tests are left to the fast build.
readonly not_sanitized='^(e2e|layering)'
readonly mpi_test='_n[0-9]+$'
run_sanitized_unit() {
  run_ctest unit --test-dir build/sanitize --label-exclude e2e --exclude-regex "$not_sanitized|$mpi_test"
}
# Open MPI keeps memory to the end by design: no leak check where it runs. The parts themselves are
# checked for leaks by the unit tests.
run_sanitized_mpi() {
  ASAN_OPTIONS=detect_leaks=0 \
    run_ctest mpi --test-dir build/sanitize --label-exclude e2e --tests-regex "$mpi_test" \
    --exclude-regex "$not_sanitized"
}
export UBSAN_OPTIONS=print_stacktrace=1

mkdir -p build
rm -f build/*/junit-*.xml
lint_options=()
if $quick; then lint_options=(--no-tidy); fi

step "dependencies" scripts/install_deps.sh --tests --cluster || finish
step "python environment" scripts/venv.sh || finish
built=true
step "build ci" build ci || built=false
step "lint" scripts/lint.sh "${lint_options[@]}" || true
if $built; then
  step "tests ci" run_ctest all --test-dir build/ci || true
  if ! $quick && step "build sanitize" build sanitize; then
    step "unit tests sanitized" run_sanitized_unit || true
    step "mpi tests sanitized" run_sanitized_mpi || true
  fi
fi
# Four share two cores: each has its minute, the whole takes four.
if ! $quick; then FUZZ_JOBS=$((2 * jobs)) step "fuzz smoke" scripts/fuzz.sh 60 || true; fi
finish
