"""Ranks, links and hosts that are lost in the middle of a merge: the job ends in time and says what it lost, the target is
absent or whole, and the same command gives the bytes of a merge that lost nothing.

Hosts are emulated by scripts/emulated_hosts.sh; where that is impossible, those tests are skipped with the reason.
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest

import checkpoint
from checkpoint import Family, make_family
from job import Job, kill, merge_arguments, staging_of, until
from oracle import Options
from program import DONE, FULL_READ, Outcome, Program, check_database_as_left

HOSTS = Path(__file__).resolve().parents[2] / "scripts" / "emulated_hosts.sh"
probe = subprocess.run([HOSTS, "--check"], capture_output=True, text=True, timeout=60)
needs_hosts = pytest.mark.skipif(probe.returncode != 0, reason=probe.stderr.strip())

ENDS_WITHIN = 10  # seconds, from the death of a rank to the end of the last process
MISSED_WITHIN = 30  # from the moment in which a host is no longer there: at first it is waited for
TRIES = 5  # a merge may be done before something could happen to it
SHAPES = {f"layers.{i}.weight": (1024, 1024) for i in range(24)}
OPTIONS = Options("ties")
MPIRUN = ("mpirun", "--host", "h1:2,h2:2", "-n", "4")

# Beside the hosts: starts the job, does something to a host when there is a staging directory, and waits for the
# job and for the ranks of the other host.
LOSING = """
there=$("$HOSTS" --agent "$HOST" readlink /proc/self/ns/uts)
"$@" & job=$!
until compgen -G "$STAGING" >/dev/null; do
  kill -0 $job 2>/dev/null || exit 99
  sleep 0.005
done
"$HOSTS" "$HOW" "$HOST"
lost=$(date +%s%N) code=0
wait $job || code=$?
echo "lost: job ended after $((($(date +%s%N) - lost) / 1000000)) ms" >&2
for ((i = 0; i < 300; i++)); do
  ranks=0
  for process in /proc/[0-9]*; do
    if [[ "$(readlink $process/exe)" == "$BINARY" && "$(readlink $process/ns/uts)" != "$there" ]]; then ranks=$((ranks + 1)); fi
  done
  ((ranks)) || break
  sleep 0.1
done
echo "lost: $ranks ranks left after $((($(date +%s%N) - lost) / 1000000)) ms" >&2
exit $code
"""


@pytest.fixture(scope="module")
def made(scratch) -> Family:
    return make_family(scratch / "lost", "BF16", experts=2, shapes=SHAPES)


@pytest.fixture(scope="module")
def undisturbed(new_program, made) -> dict[str, bytes]:
    return new_program("undisturbed").merge(made, *FULL_READ, options=OPTIONS).output_files()


def assert_absent_or_whole(program: Program, undisturbed: dict[str, bytes], outcome: Outcome) -> bool:
    """Whether the output is there."""
    target = program.outputs / "merged"
    assert "[OK]" not in outcome.stdout, outcome
    if program.catalog.exists():
        assert check_database_as_left(program.catalog) == "ok"
    if not target.exists():
        return False
    files = checkpoint.all_files(target)
    assert files.pop("manifest.json", None) is not None, f"an output without a manifest{outcome}"
    assert files == undisturbed, f"a part of an output, or another one{outcome}"
    return True


def assert_rerun(program: Program, made: Family, undisturbed: dict[str, bytes], **how) -> None:
    again = program.merge(made, *FULL_READ, "--threads", "1", options=OPTIONS, timeout=60, **how)
    assert again.output_files() == undisturbed, f"the rerun gives other bytes{again.outcome}"
    left = [path.name for path in program.outputs.iterdir() if path.name != "merged"]
    assert not left, f"left beside the output: {left}"


def attempts(program: Program):
    """The output's parent, empty, for each."""
    for _ in range(TRIES):
        assert not any(program.outputs.iterdir())
        yield
        for path in program.outputs.iterdir():
            subprocess.run(["rm", "-r", path], check=True)
    pytest.fail(f"{TRIES} merges were done before anything happened to them")


# ------------------------------------------------------------------------------------------------- on one host

@pytest.mark.parametrize("rank", [0, 3])
def test_a_killed_rank_of_mpirun(program, made, undisturbed, rank):
    for _ in attempts(program):
        job = Job(program, *merge_arguments(program, made, *FULL_READ, "--threads", "1", options=OPTIONS), ranks=4)
        victim = None
        while job.running() and not (victim and staging_of(program)):
            victim = victim or job.ranks().get(rank)
            time.sleep(0.001)
        killed_at = time.monotonic()
        killed = victim is not None and kill(victim)
        outcome = job.wait()
        job.wait_for_all(ENDS_WITHIN)
        seconds = time.monotonic() - killed_at
        if killed and outcome.code != DONE:
            break
    assert seconds < ENDS_WITHIN, outcome
    assert f"rank {rank} " in outcome.stderr and socket.gethostname() in outcome.stderr, \
        f"it does not say that rank {rank} on {socket.gethostname()} was lost{outcome}"
    if not assert_absent_or_whole(program, undisturbed, outcome):
        assert_rerun(program, made, undisturbed, ranks=4)


def test_a_killed_launcher(program, made, undisturbed):
    """Its ranks notice."""
    for _ in attempts(program):
        job = Job(program, *merge_arguments(program, made, *FULL_READ, "--threads", "1", options=OPTIONS), ranks=4)
        until(lambda: not job.running() or staging_of(program) is not None, 30)
        killed_at, launcher = time.monotonic(), job.launcher()
        killed = launcher is not None and kill(launcher)
        outcome = job.wait()
        job.wait_for_all(ENDS_WITHIN)
        if killed and outcome.code != DONE:
            break
    assert time.monotonic() - killed_at < ENDS_WITHIN, outcome
    if not assert_absent_or_whole(program, undisturbed, outcome):
        assert_rerun(program, made, undisturbed, ranks=4)


# --------------------------------------------------------------------------------------------- on several hosts

def seconds_after(outcome: Outcome, what: str) -> float:
    line = next(line for line in outcome.stderr.splitlines() if line.startswith(f"lost: {what}"))
    return int(line.split()[-2]) / 1000


@needs_hosts
@pytest.mark.parametrize("host", ["h1", "h2"])
@pytest.mark.parametrize("how", ["--cut", "--crash"])
def test_a_host_that_is_lost(program, made, undisturbed, how, host):
    """Rank 0 is on h1. The ranks of a host whose link is cut may wait there for as long as TCP does, a quarter of an hour."""
    env = {"HOSTS": str(HOSTS), "HOW": how, "HOST": host, "BINARY": program.binary,
           "STAGING": str(program.outputs / ".merged.mergepipe-*")}
    for _ in attempts(program):
        outcome = program.try_merge(made, *FULL_READ, "--threads", "1", options=OPTIONS, env=env, timeout=60,
                                    prefix=(str(HOSTS), "bash", "-c", LOSING, "losing", *MPIRUN))
        assert outcome.code != 124, f"`timeout` had to end it{outcome}"
        if outcome.code not in (DONE, 99):
            break
    assert seconds_after(outcome, "job ended") < MISSED_WITHIN, outcome
    assert seconds_after(outcome, "0 ranks left") < MISSED_WITHIN, outcome
    # A host that is lost while mpirun still waits for word of its start is not named by it.
    assert f"on node {host}" in outcome.stderr or "start one or more daemons" in outcome.stderr, outcome
    if not assert_absent_or_whole(program, undisturbed, outcome):
        assert_rerun(program, made, undisturbed, prefix=(str(HOSTS), *MPIRUN))
