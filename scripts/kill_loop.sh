#!/usr/bin/env bash
# Kills merges at random moments, runs the same command again until it is done, and checks what must hold: the target is
# absent, or the whole old output, or the whole new one; the catalog passes SQLite's check; all processes are gone within 10 s; in
# the end the bytes are those of a merge that nobody disturbed, and no finished work was read again.
#
#   scripts/kill_loop.sh KILLS [RANKS] [OPTION...]
#
# RANKS: numbers of ranks to draw from, 0 for a plain process [0,1,2,4]. A rank is killed, or mpirun; the last lines say
# in which phases. It prints its seed: --seed S starts with that again, --rounds N ends after so many merges, --seconds T begins
# none after T. What is drawn follows from the seed, when the kill falls within the merge also from the machine.
#
# MERGEPIPE_BIN: the program [build/release/src/mergepipe]. MERGEPIPE_E2E_KEEP=1 keeps the working directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if (($# == 0)); then
  sed -n '2,12s/^# \{0,1\}//p' scripts/kill_loop.sh >&2
  exit 2
fi
. scripts/mpi_env.sh
MERGEPIPE_BIN=$(readlink -f "${MERGEPIPE_BIN:-build/release/src/mergepipe}")
[[ -x "$MERGEPIPE_BIN" ]] || { echo "kill_loop: there is no $MERGEPIPE_BIN; build it, or set MERGEPIPE_BIN" >&2; exit 1; }
export MERGEPIPE_BIN PYTHONDONTWRITEBYTECODE=1
python=$(scripts/venv.sh | tail -n 1)
exec "$python" tests/e2e/kill_loop.py "$@"
