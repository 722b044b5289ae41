#!/usr/bin/env bash
# From a fresh clone to a merged checkpoint: installs what is missing, builds the release, makes a small
# family of models in ./demo and merges it on two ranks. May be run again at any time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/mpi_env.sh

readonly mergepipe=build/release/src/mergepipe
readonly catalog=demo/mergedb.sqlite
mkdir -p build
readonly log=$PWD/build/quickstart.log
current=start
trap 'status=$?; ((status == 0)) || echo "quickstart: FAILED in step \"$current\" (exit $status)" >&2' EXIT

# step NAME COMMAND...: quiet unless it fails; a failure shows its output and ends the script.
step() {
  current=$1
  shift
  echo "== $current"
  local status=0
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if ((status != 0)); then
    tail -n 40 "$log" >&2
    exit "$status"
  fi
}

# Open MPI's mpirun can hang, deaf to SIGTERM, after a rank was killed: hence -k.
on_two_ranks() { timeout -k 5 600 mpirun -n 2 "$@"; }

step "install dependencies" scripts/install_deps.sh
step "configure" cmake --preset release -DMERGEPIPE_TESTS=OFF
step "build (some minutes the first time)" cmake --build --preset release
if [[ -d demo/base && -d demo/expert_1 && -d demo/expert_2 ]]; then
  echo "== demo models: already in demo/"
else
  step "make the demo models" "$mergepipe" demo demo --experts 2
fi
step "merge on two ranks" on_two_ranks "$mergepipe" merge \
  --base demo/base --experts demo/expert_1 demo/expert_2 --out demo/merged \
  --db "$catalog" --runs-dir demo/runs --overwrite
if ! ok_line=$(grep -m 1 '^\[OK\]' "$log"); then
  cat "$log" >&2
  echo "quickstart: the merge printed no [OK] line" >&2
  exit 1
fi
step "verify the output" "$mergepipe" verify demo/merged --db "$catalog"

run=$(sed -n 's/.*| run=\([^ ]*\) .*/\1/p' <<<"$ok_line")
cat <<END

$ok_line

  demo/merged     the merged checkpoint (an ordinary Hugging Face directory), verified
  $run   plan.json, manifest.json, meta.json: what was read, what became of each tensor
  $catalog   the catalog

Try next:
  $mergepipe explain $run
  $mergepipe merge --base demo/base --experts demo/expert_1 demo/expert_2 \\
      --out demo/merged_full --no-budget --top-p 1 --db $catalog --runs-dir demo/runs
  $mergepipe --help
END
