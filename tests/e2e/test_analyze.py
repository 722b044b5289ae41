"""`analyze`: each byte read once, nothing read twice, and statistics that are used only where they hold."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import checkpoint
import delta_family
import oracle
import selection_oracle as selection
import traced
from checkpoint import Family
from delta_family import Recipe
from oracle import Options
from program import BAD_INPUT, FULL_READ, MIB, USAGE, megabytes
from traced import needs_strace

BLOCK = 1000
RANKS = [None, 2]


def analyze_traced(program, family: Family, name: str, *extra, block_size: int = BLOCK, **how):
    """`analyze --json` under strace: what it says, and what it read."""
    run = traced.run_killed if "at" in how else traced.run
    outcome, trace = run(program, name, "analyze", "--json", "--base", family.base.path, "--experts",
                         *family.paths(), "--block-size", block_size, *extra, **how)
    said = json.loads(outcome.stdout) if outcome.code == 0 else None
    return outcome, said, trace


def statistics_of(program, family: Family, block_size: int = BLOCK, **how) -> list[dict]:
    """What a plan says of its statistics; refused by the program if the catalog lacks them."""
    plan = program.plan(family, "--analyze", "none", "--no-budget", "--top-p", "0.5", "--scoring", "l2",
                        options=Options("avg", block_size=block_size), **how)
    assert [s["kind"] for s in plan["statistics"]] == ["exact"] * len(family.experts)
    return plan["statistics"]


def first(family: Family, count: int) -> Family:
    return Family(family.base, family.experts[:count])


def copied(family: Family, root: Path) -> Family:
    """A copy that a test may change."""
    models = [checkpoint.Model(shutil.copytree(m.path, root / m.name), m.tensors) for m in [family.base, *family.experts]]
    return Family(models[0], models[1:])


@pytest.fixture(scope="module")
def made(scratch) -> Family:
    return delta_family.make(scratch / "analyzed", Recipe("BF16", experts=3, shards=2, scale=0.03, integers=True))


# ------------------------------------------------------------------------------------------ what it says

@pytest.mark.parametrize("ranks", RANKS)
def test_what_it_prints(program, made, ranks):
    outcome = program.try_analyze(made, "--block-size", BLOCK, ranks=ranks).expect(0)
    line = outcome.stdout.partition("\n")[0]
    assert re.match(r"\[OK\] analyzed base=base experts=\['expert_a', 'expert_b', 'expert_c'\] \| ", line), outcome
    assert outcome.stdout.count("[OK]") == 1, "more than one rank printed"
    program.assert_catalog_intact()


def test_json(program, made):
    said = program.analyze(made, "--block-size", BLOCK)
    assert said["base"] == "base" and said["block_size"] == BLOCK and said["seconds"] >= 0
    assert said["experts"] == [{"id": e.name, "analyzed": True} for e in made.experts]
    assert said["base_bytes_read"] >= sum(t.nbytes for t in made.base.tensors.values() if oracle.is_float(t.dtype))


def test_models_are_registered_on_the_fly(program, made):
    program.analyze(made, "--block-size", BLOCK)
    listed = program.run("models").expect(0).stdout
    assert all(model.name in listed for model in [made.base, *made.experts])
    outcome = program.run("analyze", "--base", "base", "--experts", *(e.name for e in made.experts),
                          "--block-size", BLOCK, "--json").expect(0)
    assert not any(e["analyzed"] for e in json.loads(outcome.stdout)["experts"])


def test_the_default_block_size_is_that_of_merge(program, made):
    program.analyze(made)
    plan = program.plan(made, "--analyze", "none", "--no-budget", "--top-p", "0.9")
    assert [s["kind"] for s in plan["statistics"]] == ["exact"] * 3


# ------------------------------------------------------------------------------------- each byte read once

@needs_strace
@pytest.mark.parametrize("ranks", [None, 1, 2, 4])
def test_every_byte_is_read_once_and_counted(program, made, ranks):
    """On registered models: exactly the float tensors, no byte twice. What it says is what strace saw."""
    for model in [made.base, *made.experts]:
        program.run("register", model.path).expect(0)
    _, said, trace = analyze_traced(program, made, "once", ranks=ranks)
    trace.assert_only_counted_reads(made)
    assert trace.expert_bytes(made) == said["expert_bytes_read"] == made.merge_bytes()
    for expert in made.experts:
        for path, pieces in trace.pieces_of(expert.path).items():
            ordered = sorted(pieces)
            assert all(a + n <= b for (a, n), (b, _) in zip(ordered, ordered[1:])), f"{path.name} has bytes read twice"
    floats = sum(t.nbytes for t in made.base.tensors.values() if oracle.is_float(t.dtype))
    assert said["base_bytes_read"] == floats <= trace.bytes_of(made.base.path)


@needs_strace
@pytest.mark.parametrize("ranks", RANKS)
def test_unregistered_models_add_their_fingerprints(program, made, ranks):
    _, said, trace = analyze_traced(program, made, "cold", ranks=ranks)
    seen = trace.expert_bytes(made)
    assert seen == said["expert_bytes_read"] == made.fingerprint_bytes() + made.merge_bytes()


@needs_strace
@pytest.mark.parametrize("ranks", RANKS)
def test_again_reads_nothing(program, made, ranks):
    program.analyze(made, "--block-size", BLOCK)
    before = program.catalog.read_bytes()
    _, said, trace = analyze_traced(program, made, "again", ranks=ranks)
    assert trace.expert_bytes(made) == 0 and trace.bytes_of(made.base.path) == 0
    assert said["expert_bytes_read"] == 0 and said["base_bytes_read"] == 0
    assert [e["analyzed"] for e in said["experts"]] == [False] * 3
    assert program.catalog.read_bytes() == before


@needs_strace
@pytest.mark.parametrize("ranks", RANKS)
def test_a_new_expert_costs_itself_and_the_base(program, made, ranks):
    """No byte of the experts that are known, and the statistics are those that one run gives."""
    program.analyze(first(made, 2), "--block-size", BLOCK)
    _, said, trace = analyze_traced(program, made, "third", ranks=ranks)
    assert [e["analyzed"] for e in said["experts"]] == [False, False, True]
    known, new = made.experts[:2], made.experts[2]
    assert [trace.bytes_of(e.path) for e in known] == [0, 0]
    new_bytes = sum(t.nbytes for t in new.tensors.values() if oracle.is_float(t.dtype))
    assert trace.bytes_of(new.path) == new_bytes + checkpoint.fingerprint_bytes(new.path) == said["expert_bytes_read"]
    assert trace.bytes_of(made.base.path) > 0
    grown = statistics_of(program, made)
    program.analyze(made, "--block-size", BLOCK, "--db", "at-once.sqlite")
    assert statistics_of(program, made, env={"MERGEPIPE_DB": "at-once.sqlite"}) == grown


@pytest.mark.parametrize("ranks, threads, memory", [(None, 1, 2048), (None, 3, 2048), (1, 2, 160), (2, 1, 2048),
                                                    (3, 2, 160), (4, 1, 2048)])
def test_statistics_have_the_same_bits_however_they_are_taken(program, made, ranks, threads, memory):
    program.analyze(made, "--block-size", BLOCK, "--threads", 2)
    reference = statistics_of(program, made)
    program.analyze(made, "--block-size", BLOCK, "--threads", threads, "--memory-mb", memory, "--db", "b.sqlite",
                    ranks=ranks)
    assert statistics_of(program, made, env={"MERGEPIPE_DB": "b.sqlite"}) == reference


def test_force_reads_again_and_finds_the_same(program, made):
    program.analyze(made, "--block-size", BLOCK)
    before = statistics_of(program, made)
    said = program.analyze(made, "--block-size", BLOCK, "--force")
    assert [e["analyzed"] for e in said["experts"]] == [True] * 3
    assert said["expert_bytes_read"] == made.merge_bytes()
    assert statistics_of(program, made) == before


def test_another_block_size_is_another_matter(program, made):
    """Statistics of other blocks are not used; both sizes live side by side."""
    program.analyze(made, "--block-size", BLOCK)
    outcome = program.run("plan", "--base", made.base.path, "--experts", *made.paths(), "--analyze", "none",
                          "--no-budget", "--top-p", "0.5", "--block-size", 999).expect(USAGE)
    assert "mergepipe analyze" in outcome.stderr
    said = program.analyze(made, "--block-size", 999)
    assert said["expert_bytes_read"] == made.merge_bytes()
    assert statistics_of(program, made, 999) != statistics_of(program, made, BLOCK)
    assert program.analyze(made, "--block-size", BLOCK)["expert_bytes_read"] == 0


# -------------------------------------------------------------------------------------- killed, and resumed

LARGE_BLOCK = 1 << 20


@pytest.fixture(scope="module")
def large(scratch) -> Family:
    """Several commits' worth: the catalog is synced once for about a GiB that a rank reads."""
    return delta_family.make_sparse(scratch / "resumed")


@pytest.fixture(scope="module")
def uninterrupted(new_program, large):
    """A program that analyzed the family in one go, and the trace of it."""
    program = new_program("uninterrupted")
    outcome, said, trace = analyze_traced(program, large, "whole", block_size=LARGE_BLOCK)
    outcome.expect(0)
    return program, said, trace


def assert_resumed(family: Family, killed: traced.Trace, resumed: traced.Trace) -> None:
    """A tensor is finished or not: the second run reads it in full or not at all (samples for fingerprints
    apart), and what it reads again lies at the end of what the first one had read."""
    for expert in family.experts:
        again = resumed.tensors_of(expert.path)
        sizes = {name: t.nbytes for name, t in expert.tensors.items()}
        partly = {n: count for n, count in again.items() if count < sizes[n] and count > 16 * checkpoint.SAMPLE_BYTES}
        assert not partly, f"{expert.name}: read in part by the second run: {partly}"
        early = {n for n, count in killed.tensors_of(expert.path).items() if count >= sizes[n]}
        order = [n for n in sizes if n in early]
        reread = [n for n in order if again.get(n, 0) >= sizes[n]]
        assert reread == order[len(order) - len(reread):], (
            f"{expert.name}: {reread} was read again though later tensors were finished")


@needs_strace
@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("call", ["pread64", "fdatasync"])
def test_a_killed_analyze_goes_on(program, large, uninterrupted, call, share):
    """SIGKILL in a read, or in a commit of the catalog; then the same command. Finished tensors stay finished."""
    whole_program, whole, whole_trace = uninterrupted
    count = traced.calls(whole_trace, call)
    assert count > 8, f"only {count} calls of {call} in a thread: the family is too small to be cut"
    _, _, killed = analyze_traced(program, large, "killed", block_size=LARGE_BLOCK, call=call, at=int(share * count))
    resumed_outcome, said, resumed = analyze_traced(program, large, "resumed", block_size=LARGE_BLOCK)
    resumed_outcome.expect(0)
    assert resumed.expert_bytes(large) == said["expert_bytes_read"]
    # Commits are the coordinating thread's, one after another; how far the others are at a read, only they know.
    assert said["expert_bytes_read"] < whole["expert_bytes_read"] * (0.9 if call == "fdatasync" and share > 0.5 else 1)
    assert_resumed(large, killed, resumed)
    assert statistics_of(program, large, LARGE_BLOCK) == statistics_of(whole_program, large, LARGE_BLOCK)
    assert program.analyze(large, "--block-size", LARGE_BLOCK)["expert_bytes_read"] == 0
    program.assert_catalog_intact()


@needs_strace
def test_a_rank_killed_among_two(program, scratch):
    """Each rank reads about a GiB between two commits: several commits take a larger family."""
    family = delta_family.make_sparse(scratch / "ranks", tensors=30)
    outcome, whole, trace = analyze_traced(program, family, "whole2", "--db", "whole.sqlite", ranks=2,
                                           block_size=LARGE_BLOCK)
    outcome.expect(0)
    reference = statistics_of(program, family, LARGE_BLOCK, env={"MERGEPIPE_DB": "whole.sqlite"})
    analyze_traced(program, family, "killed2", ranks=2, timeout=60, block_size=LARGE_BLOCK, call="pread64",
                   at=int(0.8 * traced.calls(trace, "pread64")))
    resumed, said, trace = analyze_traced(program, family, "resumed2", ranks=2, block_size=LARGE_BLOCK)
    resumed.expect(0)
    assert trace.expert_bytes(family) == said["expert_bytes_read"] < whole["expert_bytes_read"]
    assert statistics_of(program, family, LARGE_BLOCK) == reference


@needs_strace
def test_an_incomplete_analysis_is_not_used(program, large, uninterrupted):
    """Statistics of half an expert are none to a plan: --analyze none refuses them."""
    count = traced.calls(uninterrupted[2], "pread64")
    analyze_traced(program, large, "killed", block_size=LARGE_BLOCK, call="pread64", at=int(0.6 * count))
    refused = program.run("plan", "--base", large.base.path, "--experts", *large.paths(), "--analyze", "none",
                          "--no-budget", "--top-p", "0.5", "--block-size", LARGE_BLOCK).expect(USAGE)
    assert "mergepipe analyze" in refused.stderr


# ------------------------------------------------------------------------------------------ changed experts

@pytest.mark.parametrize("change", ["mtime", "inode", "content", "config"])
def test_a_changed_expert_is_analyzed_again(program, made, change):
    family = copied(first(made, 2), program.root / "models")
    program.analyze(family, "--block-size", BLOCK)
    before = statistics_of(program, family)
    target = checkpoint.weight_files(family.experts[0].path)[0]
    if change == "mtime":
        os.utime(target, ns=(1, 1))
    elif change == "config":  # what a tied head stands for may be another tensor now
        config = target.parent / "config.json"
        said = json.loads(config.read_text()) if config.exists() else {}
        config.write_text(json.dumps(said | {"tie_word_embeddings": not said.get("tie_word_embeddings", False)}))
    elif change == "inode":
        shutil.copy2(target, target.with_suffix(".new"))
        os.replace(target.with_suffix(".new"), target)
    else:
        data = bytearray(target.read_bytes())
        data[-5] ^= 0x21
        target.write_bytes(data)
    outcome = program.run("plan", "--base", family.base.path, "--experts", *family.paths(), "--analyze", "none",
                          "--no-budget", "--top-p", "0.5", "--block-size", BLOCK).expect(USAGE)
    assert "mergepipe analyze" in outcome.stderr, "statistics of a changed file were used"
    said = program.analyze(family, "--block-size", BLOCK)
    assert [e["analyzed"] for e in said["experts"]] == [True, False]
    after = statistics_of(program, family)
    assert after[1] == before[1] and (after[0] == before[0]) == (change != "content")


def test_a_changed_base_drops_everything(program, made):
    family = copied(first(made, 2), program.root / "models")
    program.analyze(family, "--block-size", BLOCK)
    os.utime(checkpoint.weight_files(family.base.path)[0], ns=(1, 1))
    said = program.analyze(family, "--block-size", BLOCK)
    assert [e["analyzed"] for e in said["experts"]] == [True, True]


def change_in_place(expert: checkpoint.Model, name: str, element: int) -> None:
    """One bit of one element, with the file's size, inode and mtime as they were."""
    for path in checkpoint.weight_files(expert.path):
        begin, header = checkpoint.read_header(path)
        if name not in header:
            continue
        status = path.stat()
        with path.open("r+b") as file:
            at = begin + header[name]["data_offsets"][0] + element * expert.tensors[name].itemsize
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return
    raise AssertionError(f"{name} is in no shard")


@pytest.mark.parametrize("ranks", [None, 4])
@pytest.mark.parametrize("strategy", ["avg", "ties"])
def test_a_change_behind_the_catalogs_back_is_refused(program, made, strategy, ranks):
    """A block that is read is checked against what analyze saw: exit 3 names the tensor, nothing is published."""
    family = copied(first(made, 2), program.root / "models")
    program.analyze(family, "--block-size", BLOCK)
    name = "model.layers.1.mlp.up_proj.weight"
    expert = family.experts[1]
    moved = np.flatnonzero(selection.delta_of(family.base.tensors[name], expert.tensors[name]))
    change_in_place(expert, name, int(moved[len(moved) // 2]))
    outcome = program.try_merge(family, *FULL_READ, options=Options(strategy, block_size=BLOCK), ranks=ranks)
    outcome.expect(BAD_INPUT)
    assert any(name in problem and "expert_b" in problem for problem in outcome.problems()), outcome
    program.assert_nothing_published()


# -------------------------------------------------------------------------------------------- bad numbers

@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_refused_and_named(program, made, value, ranks):
    family = copied(first(made, 2), program.root / "models")
    name, expert = "model.layers.0.mlp.up_proj.weight", family.experts[1]
    damaged = {n: t.copy() for n, t in expert.tensors.items()}
    damaged[name].reshape(-1)[1234] = value
    shutil.rmtree(expert.path)
    checkpoint.write_model(expert.path, [damaged], "BF16")
    outcome = program.try_analyze(family, "--block-size", BLOCK, ranks=ranks).expect(BAD_INPUT)
    assert any(name in problem and "expert_b" in problem for problem in outcome.problems()), outcome
    assert "--nonfinite allow" in outcome.stderr
    program.analyze(family, "--block-size", BLOCK, "--nonfinite", "allow", ranks=ranks)
    plan = program.plan(family, "--analyze", "none", "--no-budget", "--top-p", "0.5", "--nonfinite", "allow",
                        options=Options("avg", block_size=BLOCK))
    assert [s["kind"] for s in plan["statistics"]] == ["exact", "exact"]


def test_what_does_not_fit_is_refused(program, made):
    """As for a merge: all problems in headers, before any weights are read."""
    family = copied(first(made, 2), program.root / "models")
    wrong = {"model.embed_tokens.weight": np.zeros((3, 3), np.float32)}
    shutil.rmtree(family.experts[0].path)
    checkpoint.write_model(family.experts[0].path, [wrong])
    outcome = program.try_analyze(family, "--block-size", BLOCK)
    assert outcome.code == BAD_INPUT and "model.embed_tokens.weight" in outcome.stderr, outcome


# ------------------------------------------------------------------------------------------ full recovery

FROZEN = Recipe("BF16", experts=2, shards=2, seed=12, frozen=0.2, run=BLOCK, scale=0.03, frozen_tensors={
    0: ("model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.0.norm.weight"),
    1: ("model.layers.0.mlp.up_proj.weight", "lm_head.weight")})
WAYS = {
    "avg": Options("avg", block_size=BLOCK), "dare": Options("dare", block_size=BLOCK),
    "ties": Options("ties", block_size=BLOCK), "ties-block": Options("ties", trim_scope="block", block_size=BLOCK),
    "avg-f32": Options("avg", block_size=BLOCK, out_dtype="f32"),
}


@pytest.fixture(scope="module")
def frozen(scratch) -> Family:
    return delta_family.make(scratch / "frozen", FROZEN)


@needs_strace
@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize("way", WAYS)
def test_frozen_blocks_are_not_read_and_change_no_bit(program, frozen, way, ranks):
    """--no-budget --top-p 1 after analyze: less is read, the output is the full read's, bit for bit."""
    options = WAYS[way]
    full = program.merge(frozen, *FULL_READ, "--db", "none.sqlite", options=options, out="full", ranks=ranks)
    program.analyze(frozen, "--block-size", BLOCK)
    known, trace = traced.merge(program, frozen, *FULL_READ, options=options, out="known", ranks=ranks)
    assert known.output_files() == full.output_files()
    plan = known.plan
    moving = sum(p.bytes for b in selection.blocks_of(plan, frozen) for p in b.pairs if not p.statistics.equal)
    assert 0 < moving < 0.8 * frozen.merge_bytes()
    assert known.manifest["io"]["expert_bytes_read"] == plan["planned"]["merge_bytes"] == moving
    assert trace.expert_bytes(frozen) == known.expert_bytes_read() == moving + frozen.compare_bytes()
    still = FROZEN.frozen_tensors[0]
    read = trace.tensors_of(frozen.experts[0].path)
    assert not set(still) & set(read), "a frozen tensor was read"
    expected = oracle.merge_model(frozen.base.tensors, frozen.expert_tensors(), options)
    checkpoint.assert_same_bits(expected, known.tensors(), way)


@pytest.mark.parametrize("way", WAYS)
def test_a_budgeted_merge_counts_equal_blocks_as_read(program, frozen, way):
    """With part of the rest unread: the oracle, given the plan's access set and its equal blocks, makes the same
    bits. In `ties` the equal blocks count in n."""
    program.analyze(frozen, "--block-size", BLOCK)
    budget = frozen.fingerprint_bytes() + frozen.compare_bytes() + frozen.merge_bytes() // 3
    merge = program.merge(frozen, "--io-budget-mb", megabytes(budget), "--top-p", "0.9", options=WAYS[way])
    expected = oracle.merge_model(frozen.base.tensors, frozen.expert_tensors(), WAYS[way], merge.plan)
    checkpoint.assert_same_bits(expected, merge.tensors(), way)
    assert merge.plan["planned"]["total_bytes"] <= budget < 4 * MIB


@pytest.mark.parametrize("way", ["avg", "ties"])
def test_replay_and_verify_hold_with_equal_blocks(program, frozen, way):
    program.analyze(frozen, "--block-size", BLOCK)
    merge = program.merge(frozen, *FULL_READ, options=WAYS[way])
    program.run("verify", merge.out).expect(0)
    program.run("replay", merge.run, "--out", program.outputs / "again", ranks=2).expect(0)
    again = checkpoint.all_files(program.outputs / "again")
    assert {n: d for n, d in again.items() if n != "manifest.json"} == merge.output_files()


def test_an_expert_that_is_the_base(program, frozen):
    """Nothing differs, nothing is read, and the output is the base."""
    twin = delta_family.write(program.root / "twin", FROZEN, frozen.base.tensors, [frozen.base.tensors])
    program.analyze(twin, "--block-size", BLOCK)
    merge = program.merge(twin, options=Options("ties", block_size=BLOCK))
    assert merge.manifest["io"]["expert_bytes_read"] == 0
    checkpoint.assert_same_bits(frozen.base.tensors, merge.tensors())
