#!/usr/bin/env bash
# Makes the Python environment of the tests in build/venv, or leaves it if it fits tests/e2e/requirements.txt.
# The last line on stdout is its python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly requirements=tests/e2e/requirements.txt
readonly venv=$PWD/build/venv
readonly stamp=$venv/.stamp

# A python that can make environments (some lack ensurepip) and is new enough for the pinned versions.
# The system's comes first: others in PATH may be wrappers that change with the directory.
find_python() {
  local candidate
  for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
      >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
  echo "venv: no Python 3.11 or newer with venv and ensurepip found; install python3-venv" >&2
  return 1
}

mkdir -p build
# Two callers at once would write into the same directory.
exec 9>build/venv.lock
command -v flock >/dev/null && flock 9

python=$(find_python)
wanted=$({ "$python" --version && cat "$requirements" && echo "$venv"; } | sha256sum | cut -d' ' -f1)
if [[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]] || ! "$venv/bin/python" -c pass 2>/dev/null; then
  echo "venv: making $venv with $python" >&2
  "$python" -m venv --clear "$venv" >&2
  # --no-deps: the file lists everything that is wanted, see its head.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
    --only-binary=:all: -r "$requirements" >&2
  echo "$wanted" >"$stamp" # last: an environment without it is made again
fi
echo "$venv/bin/python"
