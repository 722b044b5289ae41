"""The budget is physical: strace sees exactly the expert bytes that the manifest states, within the budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import checkpoint
import delta_family
import selection_oracle as selection
import strace_log
import traced
from checkpoint import Family, make_family
from delta_family import Recipe
from oracle import Options
from program import FULL_READ, USAGE, Merge, megabytes
from traced import Trace

pytestmark = traced.needs_strace

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


def assert_counted(merge: Merge, made: Family, trace: Trace, budget: int | None) -> int:
    """What strace saw is what the manifest states, in total and by rank, and within the budget."""
    trace.assert_only_counted_reads(made)
    seen, io = trace.expert_bytes(made), merge.manifest["io"]
    assert seen == io["probe_bytes_read"] + io["expert_bytes_read"], f"strace saw {seen}, the manifest says {io}"
    assert io["budget_bytes"] == budget
    assert sum(rank["expert_bytes_read"] for rank in io["by_rank"]) == io["expert_bytes_read"]
    if budget is not None:
        assert seen <= budget
    return seen


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


def test_the_tracer_knows_tensors(scratch):
    """Bytes by tensor: of two pieces across a boundary, headers apart."""
    tensors = {"a": np.zeros(100, "f4"), "b": np.zeros(50, "f4")}
    path = checkpoint.write_safetensors(scratch / "by-tensor" / "model.safetensors", tensors)
    begin, _ = checkpoint.read_header(path)
    reads = strace_log.Reads([(0, begin + 40), (begin + 380, 60)])
    trace = Trace(Path("none"), {str(path.resolve()): reads})
    assert trace.tensors_of(path.parent) == {"a": 40 + 20, "b": 40}
    assert trace.bytes_of(path.parent) == 100


# --------------------------------------------------------------------------- cold: scores come from probes

# On four ranks one strategy of each kind.
PHYSICAL = [(way, ranks) for way in WAYS for ranks in (None, 2, 4) if ranks != 4 or way not in ("ties-block", "dare")]


@pytest.mark.parametrize("way,ranks", PHYSICAL)
def test_the_budget_is_physical(program, made, way, ranks):
    """Default scoring on an empty catalog: fingerprints, probes, integer tensors and blocks, all counted."""
    budget = budget_of(made, 0.4)
    merge, trace = traced.merge(program, made, "--io-budget-mb", megabytes(budget), "--top-p", "0.9",
                                options=WAYS[way], ranks=ranks)
    seen = assert_counted(merge, made, trace, budget)
    io, planned = merge.manifest["io"], merge.plan["planned"]
    assert seen == planned["total_bytes"], "on a fresh catalog what was planned is what was read"
    assert io["planned_expert_bytes"] == planned["total_bytes"]
    assert io["expert_bytes_read"] == planned["merge_bytes"] > 0
    assert 0 < planned["probe_bytes"] <= budget // 8
    assert io["probe_bytes_read"] == sum(planned[f"{part}_bytes"] for part in ("fingerprint", "probe", "compare"))


@pytest.mark.parametrize("ranks", [None, 4])
@pytest.mark.parametrize("share", [0.2, 0.11, 0.6])
def test_a_budget_that_cuts_a_tensor(program, made, share, ranks):
    budget = budget_of(made, share) + 123  # no sum of blocks
    merge, trace = traced.merge(program, made, "--io-budget-mb", megabytes(budget), "--top-p", "1",
                                options=WAYS["avg"], ranks=ranks)
    assert assert_counted(merge, made, trace, budget) > budget - 2 * BLOCK, "room for a block was left"
    cut = [t for t in merge.plan["tensors"] if t["rule"] == "merge"
           and 0 < t["touched_blocks"] < -(-np.prod(t["shape"], dtype=int) // BLOCK)]
    assert cut, "no tensor was cut: the case shows nothing"


@pytest.mark.parametrize("scoring", ["uniform", "l2", "abs"])
def test_every_scoring_is_counted(program, made, scoring):
    budget = budget_of(made, 0.3)
    merge, trace = traced.merge(program, made, "--io-budget-mb", megabytes(budget), "--scoring", scoring,
                                options=WAYS["avg"])
    assert assert_counted(merge, made, trace, budget) == merge.plan["planned"]["total_bytes"]
    assert (merge.plan["planned"]["probe_bytes"] == 0) == (scoring == "uniform")


@pytest.mark.parametrize("ranks", [None, 1, 2, 4])
def test_reading_again_is_counted_again(program, made, ranks):
    """ties with tensors that do not fit --resident-mb: three passes, all in the budget."""
    budget = budget_of(made, 1.5)
    merge, trace = traced.merge(program, made, "--io-budget-mb", megabytes(budget), "--top-p", "1",
                                "--resident-mb", "0.02", options=WAYS["ties"], ranks=ranks)
    assert {t["reads"] for t in merge.plan["tensors"] if any(t["selected"])} >= {3}
    assert assert_counted(merge, made, trace, budget) == merge.plan["planned"]["total_bytes"]


@pytest.mark.parametrize("ranks", [None, 2])
def test_full_read_reads_everything_once(program, made, ranks):
    merge, trace = traced.merge(program, made, *FULL_READ, options=WAYS["ties"], ranks=ranks)
    everything = made.fingerprint_bytes() + made.compare_bytes() + made.merge_bytes()
    assert assert_counted(merge, made, trace, None) == merge.expert_bytes_read() == everything


# ------------------------------------------------------------------------------------- where a probe reads

# Blocks of up to 200 KB, probed in their middle; 12 blocks in all.
PROBED = Recipe("BF16", experts=2, seed=5, run=3000, integers=False, shapes={
    "embed": (800, 250), "layers.0.w": (900, 333), "layers.1.w": (900, 331), "norm": (250,), "head": (800, 251)})
PROBED_BLOCK = 100000


@pytest.fixture(scope="module")
def probed(scratch) -> Family:
    return delta_family.make(scratch / "probed", PROBED)


@pytest.mark.parametrize("ranks", [None, 2, 4])
@pytest.mark.parametrize("share", [0.25, 0.9])
def test_a_probe_reads_the_middle_of_each_stride(program, probed, share, ranks):
    """Planning on a registered family reads the samples and nothing else: base and experts at the same places."""
    for model in [probed.base, *probed.experts]:
        program.run("register", model.path).expect(0)
    outcome, trace = traced.run(
        program, "plan", "plan", "--json", "--base", probed.base.path, "--experts", *probed.paths(), "--io-budget-mb",
        megabytes(budget_of(probed, share)), "--block-size", PROBED_BLOCK, "--strategy", "avg", ranks=ranks)
    plan = json.loads(outcome.expect(0).stdout)
    expected = sampled_ranges(plan, probed)
    for model in probed.experts:
        (path, pieces), = trace.pieces_of(model.path).items()
        begin, _ = checkpoint.read_header(path)
        assert merged_ranges((at - begin, size) for at, size in pieces) == expected, model.name
        assert sum(size for _, size in pieces) == sum(end - first for first, end in expected), "a byte was read twice"
    assert trace.expert_bytes(probed) == plan["planned"]["probe_bytes"] <= plan["options"]["budget_bytes"] // 8
    assert (plan["probe_stride"] == 1) == (share == 0.9), plan["probe_stride"]


def sampled_ranges(plan: dict, family: Family) -> list[tuple[int, int]]:
    """Byte ranges, in the data of one BF16 file, that a probe of the plan's stride takes."""
    starts, at = {}, 0
    for name, tensor in family.base.tensors.items():
        starts[name] = at
        at += tensor.nbytes
    ranges = []
    for block in selection.blocks_of(plan, family)[:: plan["probe_stride"]]:
        start = starts[plan["tensors"][block.tensor]["name"]]
        ranges.append((start + 2 * block.sample.start, 2 * (block.sample.stop - block.sample.start)))
    return merged_ranges(ranges)


def merged_ranges(pieces) -> list[tuple[int, int]]:
    """Pieces (offset, size) as sorted ranges (first, end) that do not touch."""
    ranges: list[tuple[int, int]] = []
    for at, size in sorted(pieces):
        if ranges and at <= ranges[-1][1]:
            ranges[-1] = ranges[-1][0], max(ranges[-1][1], at + size)
        else:
            ranges.append((at, at + size))
    return ranges


@pytest.mark.parametrize("ranks", [None, 4])
def test_probes_are_charged_and_read_once(program, probed, ranks):
    """Cold merge with true samples; then a warm one: no probe again, the same plan, the same bytes out."""
    budget = budget_of(probed, 0.35)
    arguments = "--io-budget-mb", megabytes(budget), "--top-p", "0.8"
    options = Options("avg", block_size=PROBED_BLOCK)
    cold, trace = traced.merge(program, probed, *arguments, options=options, out="cold", ranks=ranks)
    planned = cold.plan["planned"]
    assert assert_counted(cold, probed, trace, budget) == planned["total_bytes"]
    warm, trace = traced.merge(program, probed, *arguments, options=options, out="warm", ranks=ranks)
    assert warm.plan["plan_hash"] == cold.plan["plan_hash"], "probes are reserved though they are known"
    seen = assert_counted(warm, probed, trace, budget)
    assert seen == planned["merge_bytes"] + planned["compare_bytes"], "fingerprints and probes were read again"
    assert warm.output_files() == cold.output_files()


def test_a_warm_catalog_reads_no_more(program, made):
    """The second merge knows the fingerprints and the probes; it states what it really read."""
    budget = budget_of(made, 0.4)
    arguments = "--io-budget-mb", megabytes(budget), "--top-p", "0.9"
    first, _ = traced.merge(program, made, *arguments, options=WAYS["ties"], out="first")
    second, trace = traced.merge(program, made, *arguments, options=WAYS["ties"], out="second")
    planned = first.plan["planned"]
    assert assert_counted(second, made, trace, budget) == planned["merge_bytes"] + planned["compare_bytes"]
    assert second.plan["plan_hash"] == first.plan["plan_hash"]


def test_planning_reads_only_fingerprints_and_probes(program, made):
    """plan and merge --dry-run read no weights to merge, and write no output."""
    for i, command in enumerate([("plan",), ("merge", "--dry-run", "--out", program.outputs / "none")]):
        outcome, trace = traced.run(program, f"plan{i}", *command, "--json", "--base", made.base.path, "--experts",
                                    *made.paths(), "--db", f"fresh{i}.sqlite", "--io-budget-mb",
                                    megabytes(budget_of(made, 0.4)), "--block-size", BLOCK)
        planned = json.loads(outcome.expect(0).stdout)["planned"]
        seen = trace.expert_bytes(made)
        assert seen - planned["fingerprint_bytes"] - planned["probe_bytes"] in (0, planned["compare_bytes"])
        assert planned["probe_bytes"] > 0
    program.assert_nothing_published()


@pytest.mark.parametrize("scoring", ["uniform", "l2cos"])
def test_planning_from_the_catalog_reads_nothing(program, made, scoring):
    program.analyze(made, "--block-size", BLOCK)
    outcome, trace = traced.run(program, "plan", "plan", "--base", made.base.path, "--experts", *made.paths(),
                                "--scoring", scoring, "--block-size", BLOCK, "--io-budget-mb",
                                megabytes(budget_of(made, 0.4)))
    outcome.expect(0)
    assert trace.expert_bytes(made) == 0


# ------------------------------------------------------------------------------------ analyzed beforehand

@pytest.mark.parametrize("ranks", [None, 1, 4])
@pytest.mark.parametrize("way", ["avg", "ties"])
def test_after_analyze_only_the_selection_is_read(program, made, way, ranks):
    program.analyze(made, "--block-size", BLOCK, ranks=ranks)
    budget = budget_of(made, 0.4)
    merge, trace = traced.merge(program, made, "--io-budget-mb", megabytes(budget), "--top-p", "0.9",
                                options=WAYS[way], ranks=ranks)
    planned = merge.plan["planned"]
    assert planned["probe_bytes"] == 0
    assert assert_counted(merge, made, trace, budget) == planned["merge_bytes"] + planned["compare_bytes"]


# ------------------------------------------------------------------------------- analyzing inside a merge

@pytest.mark.parametrize("ranks", [None, 1, 4])
def test_a_full_analysis_in_a_merge_is_charged(program, made, ranks):
    """--analyze full: all of the experts once, then the selection, all of it in one budget."""
    budget = budget_of(made, 1.5)
    merge, trace = traced.merge(program, made, "--io-budget-mb", megabytes(budget), "--analyze", "full", "--top-p", "0.9",
                                options=WAYS["avg"], ranks=ranks)
    seen = assert_counted(merge, made, trace, budget)
    assert [s["kind"] for s in merge.plan["statistics"]] == ["exact", "exact"]
    assert seen >= made.fingerprint_bytes() + made.merge_bytes() + merge.plan["planned"]["merge_bytes"]
    assert merge.manifest["io"]["expert_bytes_read"] == merge.plan["planned"]["merge_bytes"] > 0
    program.analyze(made, "--block-size", BLOCK)
    warm, trace = traced.merge(program, made, "--io-budget-mb", megabytes(budget), "--analyze", "full", "--top-p", "0.9",
                               options=WAYS["avg"], out="warm")
    assert assert_counted(warm, made, trace, budget) <= budget_of(made, 1), "what is known was analyzed again"


def test_a_full_analysis_that_does_not_fit_is_refused(program, made):
    """Before a weight is read; the line says what it would read, and what to do instead."""
    outcome, trace = traced.run(program, "refused", "merge", "--base", made.base.path, "--experts", *made.paths(), "--out",
                                program.outputs / "none", "--analyze", "full", "--io-budget-mb",
                                megabytes(budget_of(made, 0.9)), "--block-size", BLOCK)
    outcome.expect(USAGE)
    assert len(outcome.problems()) == 1, outcome
    assert "--analyze" in outcome.problems()[0] and "budget" in outcome.problems()[0], outcome
    assert trace.expert_bytes(made) <= made.fingerprint_bytes()
    program.assert_nothing_published()


def test_a_resumed_analysis_counts_what_it_reads(program, scratch):
    """Killed in a commit, then run again: what the second run states is what strace saw of it."""
    family = delta_family.make_sparse(scratch / "resumed-budget")
    arguments = ("analyze", "--json", "--base", family.base.path, "--experts", *family.paths(), "--block-size", 1 << 20)
    _, whole = traced.run(program, "whole", *arguments, "--db", "whole.sqlite")
    count = traced.calls(whole, "fdatasync")
    traced.run_killed(program, "killed", *arguments, call="fdatasync", at=int(0.8 * count))
    outcome, trace = traced.run(program, "resumed", *arguments)
    said = json.loads(outcome.expect(0).stdout)
    trace.assert_only_counted_reads(family)
    assert trace.expert_bytes(family) == said["expert_bytes_read"] < family.merge_bytes()


def test_the_weights_of_the_base_are_not_mapped_either(program, made):
    """Weights are never mmapped."""
    _, trace = traced.merge(program, made, *FULL_READ, options=Options())
    for path in checkpoint.weight_files(made.base.path):
        mapped = [line for line in trace.files[str(path.resolve())].other if line.startswith("mmap")]
        assert not mapped, mapped
