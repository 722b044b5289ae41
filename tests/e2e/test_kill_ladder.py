"""SIGKILL in every kind of system call, on one call after the other: what is there is whole, and the same command
goes on to the undisturbed bytes."""

from __future__ import annotations

import pytest

import checkpoint
import fault_ladder
from traced import needs_strace

LIMIT = 8
KILL = (None,)
GROUPS = ("openat", "pwrite64", "fsync", "rename", "allocate", "unlink", "close")
SHAPES = {"a.weight": (200, 110), "b.weight": (400,), "c.scale": ()}


@pytest.fixture(scope="module")
def small(scratch):
    return checkpoint.make_family(scratch / "family-kill", "BF16", shapes=SHAPES, shards=2)


@needs_strace
@pytest.mark.parametrize("group", GROUPS)
def test_a_merge(program, small, group):
    assert fault_ladder.climb(program, fault_ladder.merge_command(small), group, LIMIT, KILL) > 0


@needs_strace
@pytest.mark.parametrize("group", ["fsync", "rename", "unlink"])
def test_an_overwriting_merge(program, small, group):
    command = fault_ladder.overwrite_command(program, small)
    assert fault_ladder.climb(program, command, group, LIMIT, KILL) > 0


@needs_strace
def test_an_exchange_by_hand(program, small):
    """Where a filesystem cannot exchange two names, three renames do; between them the old output has another name."""
    command = fault_ladder.overwrite_command(program, small)
    command.inject = ("renameat2:error=EINVAL",)
    previous = program.outputs / ".merged.mergepipe-previous"
    command.whole = lambda p, made: made is None and checkpoint.all_files(previous).keys() >= command.before.keys()
    outcome, lines = fault_ladder.run(program, command, "rename")
    command.expected = fault_ladder.output(program)
    by_hand = [line for line in lines if " rename(" in line and str(program.outputs) in line]
    assert len(by_hand) == 3, f"{by_hand}{outcome.expect(0)}"
    for number in (1, 2, 3):
        outcome, lines = fault_ladder.run(program, command, "rename", f"signal=SIGKILL:when={number}")
        assert fault_ladder.check_rung(program, command, "rename", outcome, lines, None)


@needs_strace
@pytest.mark.parametrize("group", ["pwrite64", "fsync", "rename"])
def test_a_materialization(program, small, group):
    command = fault_ladder.materialize_command(program, small)
    assert fault_ladder.climb(program, command, group, 5, KILL) > 0


@needs_strace
@pytest.mark.parametrize("group", ["pwrite64", "fsync"])
def test_an_analysis(program, small, group):
    assert fault_ladder.climb(program, fault_ladder.analyze_command(small), group, 5, KILL) > 0


@needs_strace
@pytest.mark.parametrize("group", ["pwrite64", "fsync"])
def test_a_registration(program, small, group):
    assert fault_ladder.climb(program, fault_ladder.register_command(small), group, 5, KILL) > 0


@needs_strace
@pytest.mark.parametrize("group", ["fsync", "rename", "unlink"])
@pytest.mark.parametrize("damaged", [False, True], ids=["lost", "damaged"])
def test_a_recovery(program, small, group, damaged):
    command = fault_ladder.recover_command(program, small, damaged)
    assert fault_ladder.climb(program, command, group, 5, KILL) > 0
