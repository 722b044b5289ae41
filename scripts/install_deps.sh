#!/usr/bin/env bash
# Installs what mergepipe is built with (Debian 12 and its kin); does nothing when all of it is there.
#
#   scripts/install_deps.sh             what building and running need
#   scripts/install_deps.sh --tests     also what the tests and the linters need
#   scripts/install_deps.sh --cluster   also what emulated hosts and a private SLURM on them need (scripts/slurm_smoke.sh)
#
# Several options may be given.
#
# MERGEPIPE_SKIP_DEPS=1 skips it, for machines where the packages come from elsewhere (modules, Spack).
set -euo pipefail
exec </dev/null

readonly build_packages=(
  g++ cmake ninja-build pkg-config openmpi-bin libopenmpi-dev libboost-mpi-dev
  libboost-serialization-dev libsqlite3-dev libcereal-dev nlohmann-json3-dev libxxhash-dev
  libgtest-dev libcli11-dev libfmt-dev libspdlog-dev libexpected-dev libssl-dev libhwy-dev)
readonly test_packages=(
  strace python3 python3-venv clang clang-format clang-tidy sqlite3 libclang-rt-dev ca-certificates
  git libbenchmark-dev e2fsprogs mount)
# Without the metapackage slurm-wlm, which brings plug-ins for much that is not needed.
readonly cluster_packages=(
  iproute2 util-linux procps slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge)

packages=("${build_packages[@]}")
for option in "$@"; do
  case "$option" in
    --tests) packages+=("${test_packages[@]}") ;;
    --cluster) packages+=("${cluster_packages[@]}") ;;
    *)
      echo "usage: $0 [--tests] [--cluster]" >&2
      exit 2
      ;;
  esac
done

if [[ "${MERGEPIPE_SKIP_DEPS:-0}" == 1 ]]; then
  echo "install_deps: skipped (MERGEPIPE_SKIP_DEPS=1)"
  exit 0
fi

# Sets `missing` to the packages that are not installed; all of them where dpkg is not in use.
find_missing() {
  missing=()
  local package state
  for package in "${packages[@]}"; do
    # The literal ${...} is dpkg-query's own format.
    # shellcheck disable=SC2016
    state=$(dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null || true)
    grep -qx installed <<<"$state" || missing+=("$package")
  done
}

refuse() {
  {
    echo "install_deps: $1. These packages are missing (Debian names):"
    printf '  %s\n' "${missing[*]}"
    echo "Install them, e.g. apt-get install ${missing[*]}"
    echo "or, if they are there in another form, set MERGEPIPE_SKIP_DEPS=1 and try again."
  } >&2
  exit 1
}

find_missing
if ((${#missing[@]} == 0)); then
  echo "install_deps: everything is there"
  exit 0
fi

command -v apt-get >/dev/null || refuse "there is no apt-get here"
as_root=()
if ((EUID != 0)); then
  if ! { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; then
    refuse "neither root nor passwordless sudo"
  fi
  as_root=(sudo -n)
fi

# The variable goes through env, as sudo drops the environment. A running apt is waited for.
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@"
}
install_missing() { apt update && apt install -y --no-install-recommends "${missing[@]}"; }

echo "install_deps: installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! install_missing >"$log" 2>&1; then
  echo "install_deps: apt-get failed, trying once more" >&2
  sleep 5
  if ! install_missing >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    find_missing
    refuse "apt-get failed twice (its last lines are above)"
  fi
fi

find_missing
((${#missing[@]} == 0)) || refuse "apt-get succeeded, but something is still missing"
echo "install_deps: done"
