"""The budget is physical: strace sees exactly the expert bytes that the manifest states, within the budget."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import checkpoint
import strace_log
from checkpoint import Family, make_family
from oracle import Options
from program import FULL_READ, Merge, megabytes

# Where a process may not be traced the proof cannot be had; whoever knows that says so.
pytestmark = pytest.mark.skipif("MERGEPIPE_NO_STRACE" in os.environ, reason="MERGEPIPE_NO_STRACE is set")

BLOCK = 500
SHAPES = {  # experts of about 400 KiB: more than the fingerprint's 64 KiB a file
    "embed.weight": (401, 97), "layers.0.weight": (211, 203), "layers.1.weight": (199, 301), "bias": (97,),
    "scale": (), "none": (0,), "head.weight": (401, 89),
}
WAYS = {
    "ties": Options("ties", block_size=BLOCK),
    "ties-block": Options("ties", trim_scope="block", block_size=BLOCK),
    "avg": Options("avg", block_size=BLOCK),
    "dare": Options("dare", block_size=BLOCK),
}


@pytest.fixture(scope="module")
def made(scratch) -> Family:
    return make_family(scratch / "traced", "BF16", experts=2, shards=2, shapes=SHAPES)


def budget_of(made: Family, share: float) -> int:
    return made.fingerprint_bytes() + made.compare_bytes() + int(share * made.merge_bytes())


def traced(program, made: Family, *extra, out="merged", **how) -> tuple[Merge, dict]:
    logs = program.root / f"strace-{out}"
    logs.mkdir()
    merge = program.merge(made, *extra, out=out, prefix=strace_log.command(logs / "log"), **how)
    return merge, strace_log.parse(logs / "log")


def weight_bytes_read(made: Family, files: dict) -> int:
    """Bytes of expert weights, headers apart, over all processes and threads."""
    total = 0
    for path in expert_files(made):
        begin, _ = checkpoint.read_header(path)
        reads = files.get(str(path.resolve()))
        total += reads.bytes_from(begin) if reads else 0
    return total


def expert_files(made: Family) -> list[Path]:
    return [path for expert in made.experts for path in checkpoint.weight_files(expert.path)]


def assert_only_counted_reads(made: Family, files: dict) -> None:
    """No mmap, sendfile or copy of expert weights, and no io_uring, whose reads strace cannot see."""
    assert "io_uring" not in files, files["io_uring"].other
    for path in expert_files(made):
        reads = files.get(str(path.resolve()))
        assert reads, f"strace saw no read of {path}: the trace or the test is wrong"
        assert not reads.other, f"{path} was read by other calls than read and pread: {reads.other[:3]}"


READER = """
import mmap, os, sys, threading
fd = os.open(sys.argv[1], os.O_RDONLY)
os.read(fd, 100); os.read(fd, 50)
thread = threading.Thread(target=lambda: (os.pread(fd, 30, 1000), os.preadv(fd, [bytearray(7), bytearray(3)], 2000)))
thread.start(); thread.join()
if os.fork() == 0:
    again = os.open(sys.argv[1], os.O_RDONLY); os.lseek(again, 4000, 0); os.read(again, 500); os._exit(0)
os.wait()
"""


def test_the_tracer_counts_reads(scratch):
    """The measuring tool itself: reads in threads and children, at known offsets; a mapping is noticed."""
    data = scratch / "tracer data"
    data.write_bytes(bytes(5000))
    tracer = [*strace_log.command(scratch / "tracer"), sys.executable, "-c"]
    subprocess.run([*tracer, READER, data], check=True, timeout=60)
    reads = strace_log.parse(scratch / "tracer")[str(data.resolve())]
    assert sorted(reads.pieces) == [(0, 100), (100, 50), (1000, 30), (2000, 10), (4000, 500)]
    assert not reads.other
    assert reads.bytes_from(120) == 30 + 30 + 10 + 500
    mapper = "import mmap, sys; f = open(sys.argv[1], 'rb'); mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)"
    subprocess.run([*tracer, mapper, data], check=True, timeout=60)
    assert strace_log.parse(scratch / "tracer")[str(data.resolve())].other


# On four ranks one strategy of each kind.
PHYSICAL = [(way, ranks) for way in WAYS for ranks in (None, 2, 4) if ranks != 4 or way not in ("ties-block", "dare")]


@pytest.mark.parametrize("way,ranks", PHYSICAL)
def test_the_budget_is_physical(program, made, way, ranks):
    budget = budget_of(made, 0.4)
    merge, files = traced(program, made, "--io-budget-mb", megabytes(budget), "--top-p", "0.9",
                          options=WAYS[way], ranks=ranks)
    assert_only_counted_reads(made, files)
    seen = weight_bytes_read(made, files)
    io, planned = merge.manifest["io"], merge.plan["planned"]
    assert io["budget_bytes"] == budget
    assert seen == io["probe_bytes_read"] + io["expert_bytes_read"], f"strace saw {seen}, the manifest says {io}"
    assert seen <= budget
    assert seen == planned["total_bytes"], "on a fresh catalog what was planned is what was read"
    assert io["planned_expert_bytes"] == planned["total_bytes"]
    assert io["expert_bytes_read"] == planned["merge_bytes"] > 0


@pytest.mark.parametrize("ranks", [None, 2])
def test_reading_again_is_counted_again(program, made, ranks):
    """ties with tensors that do not fit --resident-mb: three passes, all in the budget."""
    budget = budget_of(made, 1.5)
    merge, files = traced(program, made, "--io-budget-mb", megabytes(budget), "--top-p", "1",
                          "--resident-mb", "0.02", options=WAYS["ties"], ranks=ranks)
    assert {t["reads"] for t in merge.plan["tensors"] if any(t["selected"])} >= {3}
    assert_only_counted_reads(made, files)
    seen = weight_bytes_read(made, files)
    assert seen == merge.expert_bytes_read() == merge.plan["planned"]["total_bytes"] <= budget


@pytest.mark.parametrize("ranks", [None, 2])
def test_full_read_reads_everything_once(program, made, ranks):
    merge, files = traced(program, made, *FULL_READ, options=WAYS["ties"], ranks=ranks)
    assert_only_counted_reads(made, files)
    everything = made.fingerprint_bytes() + made.compare_bytes() + made.merge_bytes()
    assert weight_bytes_read(made, files) == merge.expert_bytes_read() == everything
    assert merge.manifest["io"]["budget_bytes"] is None


def test_a_warm_catalog_reads_no_more(program, made):
    """The second merge knows the fingerprints; it states what it really read."""
    arguments = "--io-budget-mb", megabytes(budget_of(made, 0.4)), "--top-p", "0.9"
    traced(program, made, *arguments, out="first")
    merge, files = traced(program, made, *arguments, out="second")
    seen = weight_bytes_read(made, files)
    assert seen == merge.expert_bytes_read() <= merge.plan["planned"]["total_bytes"]


def test_planning_reads_only_fingerprints(program, made):
    """plan and merge --dry-run read no weights to merge, and write no output."""
    for i, command in enumerate([("plan",), ("merge", "--dry-run", "--out", program.outputs / "none")]):
        logs = program.root / f"strace-plan{i}"
        logs.mkdir()
        program.run(*command, "--base", made.base.path, "--experts", *made.paths(), "--db", f"fresh{i}.sqlite",
                    prefix=strace_log.command(logs / "log")).expect(0)
        seen = weight_bytes_read(made, strace_log.parse(logs / "log"))
        assert seen <= made.fingerprint_bytes() + made.compare_bytes()
    program.assert_nothing_published()


def test_the_weights_of_the_base_are_not_mapped_either(program, made):
    """Weights are never mmapped."""
    _, files = traced(program, made, *FULL_READ)
    for path in checkpoint.weight_files(made.base.path):
        mapped = [line for line in files[str(path.resolve())].other if line.startswith("mmap")]
        assert not mapped, mapped
