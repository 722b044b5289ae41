"""A merge in which every kind of system call fails in turn, on one call after the other: the output is absent or whole,
the catalog intact, one line says what failed, and the same command then gives the undisturbed bytes."""

from __future__ import annotations

import pytest

import checkpoint
import fault_ladder
from traced import needs_strace

LIMIT = 10
SHAPES = {"a.weight": (200, 110), "b.weight": (400,), "c.scale": ()}


@pytest.fixture(scope="module")
def small(scratch):
    return checkpoint.make_family(scratch / "family-ladder", "BF16", shapes=SHAPES, shards=2)


@needs_strace
@pytest.mark.parametrize("group", fault_ladder.GROUPS)
def test_a_merge(program, small, group):
    hits = fault_ladder.climb(program, fault_ladder.merge_command(small), group, LIMIT)
    assert hits > 0, f"no call of {group} was disturbed"


@needs_strace
@pytest.mark.parametrize("group", ["rename", "fsync", "unlink"])
def test_an_overwriting_merge(program, small, group):
    command = fault_ladder.overwrite_command(program, small)
    assert fault_ladder.climb(program, command, group, LIMIT) > 0
