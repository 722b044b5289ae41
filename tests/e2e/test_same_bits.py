"""The same plan hash and output bytes for any number of ranks and threads, cold or warm."""

from __future__ import annotations

import shutil

import pytest

from checkpoint import ODD_BLOCK, Family, Model, make_family
from oracle import Options
from program import FULL_READ, megabytes

RANKS_AND_THREADS = [(None, 2), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (4, 2), (7, 1)]
SHAPES = {  # large enough for seven slices, with tensors that several ranks share
    "embed.weight": (301, 97), "layers.0.weight": (97, 101), "layers.1.weight": (97, 103), "bias": (97,),
    "scale": (), "none": (0,), "head.weight": (301, 89),
}
WAYS = {
    "ties": (Options("ties", block_size=ODD_BLOCK), FULL_READ),
    "ties-read-again": (Options("ties", block_size=1000), ("--resident-mb", "0.002", "--top-p", "0.7", "--no-budget")),
    "ties-block-budget": (Options("ties", trim_scope="block", block_size=ODD_BLOCK), "budget"),
    "avg-budget": (Options("avg", block_size=ODD_BLOCK), "budget"),
    "dare": (Options("dare", seed=3, block_size=999), FULL_READ),
}


@pytest.fixture(scope="module")
def made(scratch) -> Family:
    return make_family(scratch / "same-bits", "BF16", experts=3, shards=2, shapes=SHAPES)


def extra_arguments(way: str, made: Family) -> tuple:
    extra = WAYS[way][1]
    if extra != "budget":
        return extra
    fixed = made.fingerprint_bytes() + made.compare_bytes()
    return "--io-budget-mb", megabytes(fixed + made.merge_bytes() // 3), "--top-p", "0.6"


@pytest.fixture(scope="module")
def reference(new_program, made):
    """One plain process with one thread, once for each way."""
    known: dict = {}

    def get(way: str):
        if way not in known:
            program = new_program(f"reference-{way}")
            known[way] = program.merge(made, *extra_arguments(way, made), "--threads", "1", options=WAYS[way][0])
        return known[way]

    return get


def assert_same(reference, merge) -> None:
    assert merge.plan["plan_hash"] == reference.plan["plan_hash"]
    assert (merge.run / "plan.json").read_bytes() == (reference.run / "plan.json").read_bytes()
    assert merge.hashes() == reference.hashes()
    ours, theirs = merge.output_files(), reference.output_files()
    assert sorted(ours) == sorted(theirs)
    changed = [name for name in ours if ours[name] != theirs[name]]
    assert not changed, f"these files have other bytes: {changed}"


@pytest.mark.parametrize("ranks, threads", RANKS_AND_THREADS)
@pytest.mark.parametrize("way", WAYS)
def test_any_number_of_ranks_and_threads(program, made, reference, way, ranks, threads):
    merge = program.merge(made, *extra_arguments(way, made), "--threads", threads, options=WAYS[way][0], ranks=ranks)
    assert_same(reference(way), merge)
    by_rank = merge.manifest["io"]["by_rank"]
    assert len(by_rank) == (ranks or 1)


@pytest.mark.parametrize("way", ["ties", "avg-budget"])
def test_a_second_run_with_the_same_catalog(program, made, reference, way):
    """Warm: the models are known, their fingerprints need not be taken again, the plan is the same."""
    options, extra = WAYS[way][0], extra_arguments(way, made)
    first = program.merge(made, *extra, options=options, out="first")
    second = program.merge(made, *extra, options=options, out="second")
    assert_same(reference(way), first)
    assert_same(reference(way), second)
    assert second.ok["run"] != first.ok["run"]
    assert second.expert_bytes_read() <= first.expert_bytes_read()


def test_copied_inputs_and_a_new_catalog(program, made, reference):
    """Paths, inodes and times of the inputs decide nothing."""
    copies = [shutil.copytree(m.path, program.root / "copy" / m.name) for m in [made.base, *made.experts]]
    copy = Family(Model(copies[0], {}), [Model(path, {}) for path in copies[1:]])
    merge = program.merge(copy, *FULL_READ, options=WAYS["ties"][0])
    assert_same(reference("ties"), merge)


@pytest.mark.parametrize("ranks", [None, 2])
def test_the_plan_command_gives_the_same_plan(program, made, reference, ranks):
    """`plan --json` prints what merge would execute."""
    plan = program.plan(made, *extra_arguments("avg-budget", made), options=WAYS["avg-budget"][0], ranks=ranks)
    assert plan == reference("avg-budget").plan


def test_the_order_of_experts_counts(program, made, reference):
    """The plan names experts in command-line order; another order is another plan."""
    turned = Family(made.base, made.experts[::-1])
    merge = program.merge(turned, *FULL_READ, options=WAYS["dare"][0])
    assert merge.plan["plan_hash"] != reference("dare").plan["plan_hash"]
