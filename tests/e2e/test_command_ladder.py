"""Every kind of system call fails in turn, in the commands beside merge and in a merge on two ranks."""

from __future__ import annotations

import pytest

import checkpoint
import fault_ladder
from traced import needs_strace

LIMIT = 5
CATALOG = ("openat", "pwrite64", "fsync", "unlink", "stat", "close")
SHAPES = {"a.weight": (200, 110), "b.weight": (400,), "c.scale": ()}


@pytest.fixture(scope="module")
def small(scratch):
    return checkpoint.make_family(scratch / "family-commands", "BF16", shapes=SHAPES, shards=2)


@needs_strace
@pytest.mark.parametrize("group", [*CATALOG, "pread64"])
def test_analyze(program, small, group):
    assert fault_ladder.climb(program, fault_ladder.analyze_command(small), group, LIMIT) > 0


@needs_strace
def test_a_disk_that_cannot_be_read(program, small):
    """sqlite3 takes that for a damaged catalog."""
    assert fault_ladder.climb(program, fault_ladder.analyze_command(small), "pread64", 12, ("EIO",)) > 0


@needs_strace
@pytest.mark.parametrize("group", [*CATALOG, "pread64"])
def test_register(program, small, group):
    assert fault_ladder.climb(program, fault_ladder.register_command(small), group, LIMIT) > 0


@needs_strace
@pytest.mark.parametrize("group", [*CATALOG, "pread64", "mkdir", "allocate", "rename"])
def test_materialize(program, small, group):
    command = fault_ladder.materialize_command(program, small)
    assert fault_ladder.climb(program, command, group, LIMIT) > 0


@needs_strace
@pytest.mark.parametrize("group", [*CATALOG, "rename"])
@pytest.mark.parametrize("damaged", [False, True], ids=["lost", "damaged"])
def test_recover(program, small, group, damaged):
    command = fault_ladder.recover_command(program, small, damaged)
    assert fault_ladder.climb(program, command, group, LIMIT) > 0


@needs_strace
@pytest.mark.parametrize("group", ["pwrite64", "fsync", "pread64"])
def test_a_merge_on_two_ranks(program, small, group):
    command = fault_ladder.merge_command(small)
    command.ranks = 2
    assert fault_ladder.climb(program, command, group, 2) > 0
