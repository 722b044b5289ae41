"""Several hosts: ranks on emulated hosts that see each other by network alone, and, where a test says so, other files.

`scripts/emulated_hosts.sh` makes the hosts of one command: h1 with ranks 0 and 1, h2 with ranks 2 and 3. What a host mounts,
it alone sees. Where hosts cannot be emulated the whole file is skipped, with the reason.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

import checkpoint
from checkpoint import ODD_BLOCK, Family, make_family
from oracle import Options
from program import BAD_INPUT, DONE, FULL_READ, IO_ERROR, NO_SPACE, USAGE, Merge, Outcome, Program, megabytes

HOSTS = Path(__file__).resolve().parents[2] / "scripts" / "emulated_hosts.sh"
probe = subprocess.run([HOSTS, "--check"], capture_output=True, text=True, timeout=60)
if probe.returncode != 0:
    pytest.skip(probe.stderr.strip(), allow_module_level=True)

ENDS_WITHIN = 10  # seconds, from what went wrong to the end of the last rank
MPIRUN = ("mpirun", "--host", "h1:2,h2:2", "-n", "4")
SHAPES = {  # large enough that four ranks share some of the tensors
    "embed.weight": (301, 97), "layers.0.weight": (97, 101), "layers.1.weight": (97, 103), "bias": (97,),
    "scale": (), "none": (0,), "head.weight": (301, 89),
}
WAYS = {
    "ties": (Options("ties", block_size=ODD_BLOCK), FULL_READ),
    "avg-budget": (Options("avg", block_size=ODD_BLOCK), "budget"),
    "dare": (Options("dare", seed=3, block_size=999), FULL_READ),
}


@pytest.fixture(scope="module")
def made(scratch) -> Family:
    return make_family(scratch / "hosts", "BF16", experts=2, shards=2, shapes=SHAPES)


@pytest.fixture(scope="module")
def large(scratch) -> Family:
    """Takes long enough that something can happen to a rank in the middle of a merge."""
    shapes = {f"layers.{i}.weight": (1024, 1024) for i in range(24)}
    return make_family(scratch / "large", "BF16", experts=2, shapes=shapes)


def extra_arguments(way: str, made: Family) -> tuple:
    if WAYS[way][1] != "budget":
        return WAYS[way][1]
    fixed = made.fingerprint_bytes() + made.compare_bytes()
    return "--io-budget-mb", megabytes(fixed + made.merge_bytes() // 3), "--top-p", "0.6"


@pytest.fixture(scope="module")
def reference(new_program, made):
    """One plain process, once for each way."""
    known: dict = {}

    def get(way: str) -> Merge:
        if way not in known:
            program = new_program(f"reference-{way}")
            known[way] = program.merge(made, *extra_arguments(way, made), options=WAYS[way][0])
        return known[way]

    return get


def on(host: str, command: str) -> tuple[str, ...]:
    """A command that a host runs before the ranks start."""
    return "--on", host, command


def hides(host: str, directory: Path) -> tuple[str, ...]:
    """Another, empty disk is at `directory` on that host."""
    return on(host, f"mount -t tmpfs tmpfs {directory}")


def on_hosts(*setup: str) -> tuple[str, ...]:
    """The prefix of a command that runs on four ranks of two hosts."""
    return (str(HOSTS), *setup, *MPIRUN)


def try_merge(program: Program, family: Family, *extra, setup=(), **how) -> Outcome:
    return program.try_merge(family, *extra, "--threads", "1", prefix=on_hosts(*setup), timeout=60, **how)


def assert_same(reference: Merge, merge: Merge) -> None:
    assert merge.plan["plan_hash"] == reference.plan["plan_hash"]
    assert merge.hashes() == reference.hashes()
    ours, theirs = merge.output_files(), reference.output_files()
    assert sorted(ours) == sorted(theirs)
    changed = [name for name in ours if ours[name] != theirs[name]]
    assert not changed, f"these files have other bytes: {changed}"


def assert_refused(program: Program, outcome: Outcome, codes: tuple[int, ...], *words: str) -> None:
    """In time, with one of the exit codes, one line that has the words, and no output."""
    assert outcome.code in codes, f"expected exit {codes}{outcome}"
    assert outcome.seconds < ENDS_WITHIN, outcome
    problems = outcome.problems()
    assert len(problems) == 1, f"expected one line{outcome}"
    assert all(word in problems[0] for word in words), f"the line lacks one of {words}{outcome}"
    assert "[OK]" not in outcome.stdout
    assert not (program.outputs / "merged").exists()


# ------------------------------------------------------------------------------------ a shared file system

@pytest.mark.parametrize("gather", ["shared", "auto"])
@pytest.mark.parametrize("way", WAYS)
def test_same_bits_as_one_process(program, made, reference, way, gather):
    options, extra = WAYS[way][0], extra_arguments(way, made)
    merge = program.merged(try_merge(program, made, *extra, "--gather", gather, options=options))
    assert_same(reference(way), merge)
    assert len(merge.manifest["io"]["by_rank"]) == 4
    assert "mergepipe: 4 ranks on 2 hosts (h1, h2): 1 thread each" in merge.outcome.stderr


def test_analyze_gives_the_same_plan(program, new_program, made):
    options = Options("avg", block_size=ODD_BLOCK)
    extra = extra_arguments("avg-budget", made)
    alone = new_program("analyzed-alone")
    alone.analyze(made, "--block-size", ODD_BLOCK)
    outcome = program.try_analyze(made, "--block-size", ODD_BLOCK, prefix=on_hosts(), timeout=60).expect(DONE)
    assert "mergepipe: 4 ranks on 2 hosts (h1, h2)" in outcome.stderr
    plans = [ran.plan(made, *extra, "--analyze", "none", options=options) for ran in (alone, program)]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("host", ["h1", "h2"])
def test_an_output_directory_that_a_host_cannot_see(program, made, host):
    """Its ranks would write into another directory of the same name, or into none."""
    outcome = try_merge(program, made, *FULL_READ, "--gather", "shared", setup=hides(host, program.outputs))
    assert_refused(program, outcome, (USAGE,), "--gather", "not on h2", str(program.outputs))
    program.assert_nothing_published()


# ------------------------------------------------------------------------------ inputs that differ by host

@pytest.fixture
def copied(program, made) -> Family:
    """A family of the test's own, with copies of its weight files in other/."""
    paths = [shutil.copytree(model.path, program.root / model.name) for model in (made.base, *made.experts)]
    shutil.copytree(paths[-1], program.root / "other")
    return Family(checkpoint.Model(paths[0], {}), [checkpoint.Model(path, {}) for path in paths[1:]])


def other_file(program: Program, copied: Family) -> tuple[Path, Path]:
    """A weight file of the last expert, and its copy."""
    file = checkpoint.weight_files(copied.experts[-1].path)[0]
    return file, program.root / "other" / file.name


def flip_bits(path: Path) -> None:
    """Another file of the same size, changed all over: so that no sample misses it."""
    begin, _ = checkpoint.read_header(path)
    data = path.read_bytes()
    path.write_bytes(data[:begin] + bytes(byte ^ 1 for byte in data[begin:]))


@pytest.mark.parametrize("gather", ["shared", "auto"])
def test_an_expert_that_is_another_file_on_one_host(program, copied, gather):
    here, other = other_file(program, copied)
    flip_bits(other)
    outcome = try_merge(program, copied, *FULL_READ, "--gather", gather, setup=on("h2", f"mount --bind {other} {here}"))
    assert_refused(program, outcome, (BAD_INPUT,), "host h2", str(here))
    program.assert_nothing_published()


def test_an_expert_that_one_host_lacks(program, copied):
    here = copied.experts[-1].path
    outcome = try_merge(program, copied, *FULL_READ, setup=hides("h2", here))
    assert_refused(program, outcome, (BAD_INPUT,), "host h2", str(here))
    program.assert_nothing_published()


def test_a_base_that_one_host_lacks(program, copied):
    here = copied.base.path
    outcome = try_merge(program, copied, *FULL_READ, setup=hides("h2", here))
    assert_refused(program, outcome, (BAD_INPUT,), "host h2", str(here))
    program.assert_nothing_published()


# -------------------------------------------------------------------------------------------- --gather root

@pytest.mark.parametrize("gather", ["root", "auto"])
@pytest.mark.parametrize("way", WAYS)
def test_an_output_that_only_rank_0_sees(program, made, reference, way, gather):
    options, extra = WAYS[way][0], extra_arguments(way, made)
    merge = program.merged(try_merge(program, made, *extra, "--gather", gather, options=options,
                                     setup=hides("h2", program.outputs)))
    assert_same(reference(way), merge)


@pytest.mark.parametrize("way", WAYS)
def test_gather_root_on_a_shared_disk(program, made, reference, way):
    options, extra = WAYS[way][0], extra_arguments(way, made)
    assert_same(reference(way), program.merged(try_merge(program, made, *extra, "--gather", "root", options=options)))


@pytest.mark.parametrize("gather", ["shared", "root"])
def test_an_expert_with_other_content_of_the_same_size_and_time(program, copied, gather):
    """Nothing but its bytes gives it away."""
    here, other = other_file(program, copied)
    flip_bits(other)
    os.utime(other, ns=(here.stat().st_atime_ns, here.stat().st_mtime_ns))
    outcome = try_merge(program, copied, *FULL_READ, "--gather", gather, setup=on("h2", f"mount --bind {other} {here}"))
    assert_refused(program, outcome, (BAD_INPUT,), "h2", str(here.parent))
    program.assert_nothing_published()


def test_gather_root_on_a_full_disk(program, made):
    """Too small for the output, but large enough for what the free space is checked against to be close."""
    setup = on("h1", f"mount -t tmpfs -o size=64k tmpfs {program.outputs}")
    outcome = try_merge(program, made, *FULL_READ, "--gather", "root", setup=setup)
    assert_refused(program, outcome, (NO_SPACE, IO_ERROR), str(program.outputs))


# ------------------------------------------------------------------------------------- failures of one rank

def test_too_small_a_disk_is_refused_before_anything_is_read(program, made):
    setup = [word for host in ("h1", "h2")
             for word in on(host, f"mount -t tmpfs -o size=64k tmpfs {program.outputs}")]
    for budget in (FULL_READ, ("--io-budget-mb", megabytes(checkpoint.weight_bytes(made.base.path)))):
        outcome = try_merge(program, made, *budget, "--gather", "shared", setup=setup)
        assert_refused(program, outcome, (NO_SPACE,), "needs", "has", str(program.outputs))


WRITES = "pwrite64,pwritev,pwritev2,copy_file_range"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_full_disk_on_one_host(program, large):
    """As a network file system tells it: to one rank, when it writes."""
    full = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={WRITES}", "-e", f"inject={WRITES}:error=ENOSPC")
    merge = [program.binary, "merge", "--base", large.base.path, "--experts", *large.paths(), *FULL_READ, "--threads", "1",
             "--out", program.outputs / "merged"]
    outcome = program.run(*merge[1:], timeout=60, prefix=(
        str(HOSTS), "mpirun", "--host", "h1:2", "-n", "2", *map(str, merge), ":",
        "--host", "h2:1", "-n", "1", *map(str, merge), ":", "--host", "h2:1", "-n", "1", *full))
    assert_refused(program, outcome, (NO_SPACE, IO_ERROR), "rank 3, host h2")


class Murder(threading.Thread):
    """Kills a rank of `program`'s merge as soon as it has something to lose: the staging directory is there."""

    def __init__(self, program: Program, rank: int):
        super().__init__(daemon=True)
        self.program, self.rank, self.killed_at = program, rank, None
        self.start()

    def run(self) -> None:
        deadline = time.monotonic() + 30
        victim = None
        while time.monotonic() < deadline:
            victim = victim or self.find()
            if victim and any(self.program.outputs.glob(".merged.mergepipe-*")):
                os.kill(victim, signal.SIGKILL)
                self.killed_at = time.monotonic()
                return
            time.sleep(0.001)

    def find(self) -> int | None:
        """The process of the rank: it has the program, the output's name and its number."""
        wanted = f"OMPI_COMM_WORLD_RANK={self.rank}".encode()
        for process in Path("/proc").iterdir():
            try:
                if not process.name.isdigit() or os.readlink(process / "exe") != self.program.binary:
                    continue
                if wanted in (process / "environ").read_bytes().split(b"\0") and \
                        str(self.program.outputs).encode() in (process / "cmdline").read_bytes():
                    return int(process.name)
            except OSError:
                continue  # it has just ended
        return None


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_killed_rank_ends_all(program, large, rank):
    murder = Murder(program, rank)
    outcome = try_merge(program, large, *FULL_READ)
    ended_at = time.monotonic()
    murder.join()
    assert murder.killed_at is not None, f"rank {rank} was not found while it merged{outcome}"
    assert outcome.code != DONE and "[OK]" not in outcome.stdout, outcome
    assert ended_at - murder.killed_at < ENDS_WITHIN, outcome
    assert not (program.outputs / "merged").exists(), "there is an output of a merge that was killed"


def test_after_a_killed_rank_the_same_command_works(program, large):
    murder = Murder(program, 2)
    try_merge(program, large, *FULL_READ)
    murder.join()
    assert murder.killed_at is not None
    again = program.merged(try_merge(program, large, *FULL_READ))
    alone = program.merge(large, *FULL_READ, out="alone")
    assert again.hashes() == alone.hashes()
    left = [path.name for path in program.outputs.iterdir() if ".mergepipe-" in path.name]
    assert not left, f"left beside the output: {left}"


# ---------------------------------------------------------------------------------------------------- doctor

def test_doctor_sees_what_another_host_lacks(program, made):
    healthy = program.run("doctor", "--out", program.outputs / "merged", made.base.path, prefix=on_hosts(), timeout=60)
    healthy.expect(DONE)
    assert "launcher: 4 ranks on 2 hosts (h1, h2)" in healthy.stdout, healthy
    assert "problem " not in healthy.stdout, healthy
    hidden = made.base.path.parent
    outcome = program.run("doctor", made.base.path, prefix=on_hosts(*hides("h2", hidden)), timeout=60).expect(BAD_INPUT)
    lines = [line for line in outcome.stdout.splitlines() if line.startswith("problem ")]
    assert len(lines) == 1 and f"input {made.base.path}: on host h2: cannot be seen" in lines[0], outcome
