#!/usr/bin/env bash
# How fast merges are, by ratios of runs that follow each other: a Markdown table on stdout.
#
#   scripts/bench.sh [--runs 5] [--cases ties,avg,...] [--cold-only|--warm-only] [--with-mergekit] [--dir DIR] \
#                    [--against BINARY] [--json FILE] [-- MORE OPTIONS OF EVERY MERGE]
#
# Makes a demo family (Qwen3-0.6B shape, four experts, bf16: 6 GB) in build/bench, or uses the one that is there.
# The programs of a case run in turns (A B A B); each time the inputs are read into the page cache before (warm), or
# put out of it (cold: /proc/sys/vm/drop_caches as root, else posix_fadvise). A ratio is that of two runs of one turn.
# Wall times are those of whole commands, from start to exit; the peak is the resident set of the largest process.
#
#   ties, avg, dare   the full read of all experts against the limit: tests/bench/io_limit.cc reads the same files and
#                     writes a file of the output's size with plain 16 MiB reads and writes on some threads, and syncs
#   analyze           against reading its bytes
#   scaling           one rank with one thread, pinned to one core; two such ranks; one rank with two threads (warm)
#   budget            the full read; 25 and 10 % of its bytes, the experts analyzed before or probed in the run
#   mergekit          ties, dare and avg against mergekit-yaml, computing in float32 (warm; --with-mergekit, 20 minutes;
#                     installs mergekit into build/bench/mergekit; it does not sync its output)
#   programs          ties, avg and dare of BINARY and of this mergepipe (--against)
#   holes             no ratio: a merge of 20 experts of 405B on four ranks, from files that are nearly all holes
#
# The programs: $MERGEPIPE_BIN, $MERGEPIPE_IO_LIMIT, else those of build/release. Ratios mean something on a machine
# that does nothing else: the first line says its load.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/mpi_env.sh
# Files of a cold run are not to be the interpreter's.
export PYTHONDONTWRITEBYTECODE=1
exec python3 scripts/bench/main.py "$@"
