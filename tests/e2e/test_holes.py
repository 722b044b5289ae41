"""A family of 70B models that are nearly all holes: what a merge costs hangs on what it reads, not on their size."""

from __future__ import annotations

import filecmp
import json
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import checkpoint
import hole_family
from checkpoint import Family, Model
from hole_family import ELEMENT, PATCH
from program import DONE, MIB, Merge

SIZE, SHARDS, EXPERTS, BLOCK = "70b", 30, 4, 640_000
BUDGET, MEMORY = 512, 1024  # MiB
STRIDE = 109  # every so many blocks that budget pays a probe of
EVERY = 8 * STRIDE  # values are where a probe finds them
SPARSE = "sparse.safetensors"


@dataclass
class Case:
    family: Family
    layout: hole_family.Layout
    alone: Merge
    ranks: Merge


@pytest.fixture(scope="module")
def case(new_program, scratch):
    program = new_program("holes")
    folder = scratch / "holes"
    hole_family.make(folder, SIZE, EXPERTS, SHARDS, EVERY, BLOCK)
    family = Family(Model(folder / "base", {}), [Model(folder / f"expert_{k}", {}) for k in range(1, EXPERTS + 1)])
    options = ("--io-budget-mb", BUDGET, "--memory-mb", MEMORY, "--analyze", "probe", "--output", "sparse")
    merges = [program.merge(family, *options, out=f"on-{ranks}", ranks=ranks, timeout=300,
                            env={"MERGEPIPE_DB": f"{ranks}.sqlite"}) for ranks in (None, 4)]
    for merge in merges:
        program.run("verify", merge.out).expect(DONE)
    return Case(family, hole_family.Layout(hole_family.SHAPES[SIZE], SHARDS), *merges)


def test_the_models_are_holes(case):
    """Or the case shows nothing."""
    for path in (model.path for model in (case.family.base, *case.family.experts)):
        files = checkpoint.weight_files(path)
        assert len(files) == SHARDS
        sizes = [file.stat() for file in files]
        assert sum(s.st_size for s in sizes) > 140e9
        assert sum(s.st_blocks * 512 for s in sizes) < 4 * MIB


def test_ranks_make_the_same_bits(case):
    assert filecmp.cmp(case.alone.out / SPARSE, case.ranks.out / SPARSE, shallow=False)
    assert case.alone.hashes() == case.ranks.hashes()


def test_budget_and_memory_hold(case):
    for merge in (case.alone, case.ranks):
        io = merge.manifest["io"]
        assert merge.expert_bytes_read() == io["planned_expert_bytes"] <= BUDGET * MIB
        assert merge.expert_bytes_read() > 0.99 * BUDGET * MIB, "the budget is not used"
        written = io["output_bytes_written"]
        assert written == sum(t["data_offsets"][1] - t["data_offsets"][0] for name, t in header(merge).items()
                              if name.endswith(".blocks"))
        for rank in json.loads((merge.run / "meta.json").read_text())["ranks"]:
            assert rank["peak_memory_bytes"] < MEMORY * MIB


def test_ranks_have_equal_shares(case):
    """Of what a sparse merge reads and writes: the rest of the 140 GB costs nothing."""
    costs = [sum(rank[f"{kind}_bytes_{done}"] for kind, done in (("expert", "read"), ("base", "read"), ("output", "written")))
             for rank in case.ranks.manifest["io"]["by_rank"]]
    assert len(costs) == 4 and max(costs) < 1.25 * sum(costs) / 4, costs


def header(merge: Merge) -> dict:
    return checkpoint.read_header(merge.out / SPARSE)[1]


def selected_blocks(merge: Merge) -> dict[str, list[set[int]]]:
    """Of each tensor that has any: for each expert."""
    selected: dict[str, list[set[int]]] = {}
    for tensor in merge.plan["tensors"]:
        blocks = [numbers(text) for text in tensor["selected"]]
        if any(blocks):
            selected[tensor["name"]] = blocks
    return selected


def numbers(text: str) -> set[int]:
    if text.startswith("x:"):
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(text[2:]), np.uint8), bitorder="little")
        return set(np.flatnonzero(bits).tolist())
    ranges = (part.partition("-") for part in text.split(",") if part)
    return {b for first, _, last in ranges for b in range(int(first), int(last or first) + 1)}


def first_numbers(case) -> dict[str, int]:
    """Of each tensor, the number of its first block, counted through all."""
    first, number = {}, 0
    for tensor in case.layout.tensors:
        first[tensor[0]] = number
        number += -(-hole_family.bytes_of(tensor) // (BLOCK * ELEMENT))
    return first


def has_values(expert: int, number: int) -> bool:
    """Expert 1 is the first. Values are in every third place."""
    return number % EVERY == 0 and number // EVERY % 3 == expert % 3


def test_what_has_values_is_read(case):
    """A block is known by the last probe at or before it."""
    plan = case.alone.plan
    assert plan["probe_stride"] == STRIDE, "the family's values are not where the probes are"
    first = first_numbers(case)
    pairs = [(k, first[name] + block) for name, experts in selected_blocks(case.alone).items()
             for k, blocks in enumerate(experts, 1) for block in blocks]
    assert len(pairs) > 300
    assert all(has_values(k, number // STRIDE * STRIDE) for k, number in pairs)


def patch_of(case, expert: int, name: str, block: int) -> np.ndarray:
    """The values of an expert's block, as float32; the rest of the block is zero."""
    path = case.family.experts[expert].path
    file = json.loads((path / checkpoint.INDEX).read_text())["weight_map"][name]
    begin, entries = checkpoint.read_header(path / file)
    elements = (entries[name]["data_offsets"][1] - entries[name]["data_offsets"][0]) // ELEMENT
    length = min(BLOCK, elements - block * BLOCK)
    offset = begin + entries[name]["data_offsets"][0] + (block * BLOCK + (length - PATCH) // 2) * ELEMENT
    return np.fromfile(path / file, ml_dtypes.bfloat16, PATCH, offset=offset).astype(np.float32)


def ties_of(deltas: list[np.ndarray]) -> np.ndarray:
    """Fewer values than the density keeps, and no zero among them: nothing is trimmed."""
    total = np.zeros(PATCH, np.float32)
    for delta in deltas:
        total += delta
    sign = np.where(total >= 0, np.float32(1), np.float32(-1))
    agreed = np.zeros(PATCH, np.float32)
    count = np.zeros(PATCH, np.float32)
    for delta in deltas:
        agrees = delta * sign > 0
        agreed += np.where(agrees, delta, np.float32(0))
        count += agrees
    return (agreed / count).astype(ml_dtypes.bfloat16)


def test_values_are_merged_and_the_rest_is_zero(case):
    path = case.ranks.out / SPARSE
    begin, entries = checkpoint.read_header(path)
    first = first_numbers(case)
    with_values = 0
    for name, experts in selected_blocks(case.ranks).items():
        at = begin + entries[name + ".blocks"]["data_offsets"][0]
        for block in sorted(set().union(*experts)):
            length = min(BLOCK, entries[name + ".blocks"]["shape"][0])
            made = np.fromfile(path, ml_dtypes.bfloat16, length, offset=at)
            at += length * ELEMENT
            reads = [k for k in range(EXPERTS) if block in experts[k] and has_values(k + 1, first[name] + block)]
            middle = slice((length - PATCH) // 2, (length + PATCH) // 2)
            if reads:
                expected = ties_of([patch_of(case, k, name, block) for k in reads])
                assert np.array_equal(made[middle].view(np.uint16), expected.view(np.uint16)), (name, block)
                with_values += 1
                made[middle] = 0
            assert not made.view(np.uint16).any(), (name, block)
    assert with_values >= 3, "no block with values was merged: the test shows nothing"
