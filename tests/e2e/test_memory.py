"""What a rank takes of memory stays under --memory-mb, whatever the model: the kernel ends a program that takes more."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import checkpoint
from checkpoint import Family, Model
from program import FULL_READ, MIB, NO_SPACE, Program

EXPERTS = 4
# The large tensor takes 64 MiB of each model and, held for its thresholds, 256 MiB of all experts.
SHAPES = {"embed.weight": (8192, 4096), "layers.0.weight": (1024, 4096), "layers.1.weight": (4096, 4096), "bias": (999,)}
BASELINE = 128  # MiB that the program counts for itself


@pytest.fixture(scope="module")
def large(scratch) -> Family:
    rng = np.random.default_rng(8)
    models = []
    for name in ("base", *(f"expert_{k}" for k in range(1, EXPERTS + 1))):
        tensors = {tensor: rng.integers(0x3c00, 0x3d00, shape, np.uint16) for tensor, shape in SHAPES.items()}
        models.append(Model(checkpoint.write_model(scratch / "memory" / name, [as_bf16(tensors)], "BF16"), {}))
    return Family(models[0], models[1:])


def as_bf16(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import ml_dtypes
    return {name: tensor.view(ml_dtypes.bfloat16) for name, tensor in tensors.items()}


@contextmanager
def memory_group(limit_mib: int):
    """A control group whose processes the kernel kills over the limit; the words that start a command in it."""
    name = f"mergepipe-{uuid.uuid4().hex[:12]}"
    for root, limit in ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max")):
        group = root / name
        try:
            group.mkdir()
            (group / limit).write_text(str(limit_mib * MIB))
            break
        except OSError:
            if group.is_dir():
                group.rmdir()
    else:
        pytest.skip("no control group for memory can be made here")
    try:
        yield "sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"
    finally:
        group.rmdir()


def peaks(merge) -> list[int]:
    return [rank["peak_memory_bytes"] for rank in json.loads((merge.run / "meta.json").read_text())["ranks"]]


# Memory, what stays resident, threads; from what the merge just needs to more than it can use.
CASES = {
    "avg-tight": ("avg", 160, 1280, 1), "avg": ("avg", 256, 1280, 2), "avg-many-threads": ("avg", 300, 1280, 16),
    "ties-held": ("ties", 520, 1280, 2), "ties-read-again": ("ties", 220, 0, 2), "ties-ample": ("ties", 1024, 1280, 4),
    "dare": ("dare", 200, 1280, 2),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups are root's")
@pytest.mark.parametrize("case", CASES)
def test_the_limit_holds(program: Program, large, case):
    strategy, memory, resident, threads = CASES[case]
    with memory_group(memory) as start:
        outcome = program.run("merge", "--base", large.base.path, "--experts", *large.paths(), *FULL_READ, "--out",
                              program.outputs / "merged", "--strategy", strategy, "--memory-mb", memory, "--resident-mb",
                              resident, "--threads", threads, prefix=start)
    merge = program.merged(outcome)
    assert all(peak <= memory * MIB for peak in peaks(merge)), peaks(merge)


def test_the_bytes_do_not_depend_on_it(program, new_program, large):
    options = FULL_READ
    ample = program.merge(large, *options, "--memory-mb", 2048)
    tight = program.merge(large, *options, "--memory-mb", 470, "--threads", 1, out="tight")
    assert ample.hashes() == tight.hashes()
    assert peaks(tight)[0] <= 470 * MIB < peaks(ample)[0] + 300 * MIB


def test_too_little_is_refused_with_what_is_enough(program, large):
    outcome = program.try_merge(large, *FULL_READ, "--memory-mb", BASELINE + 10).expect(NO_SPACE)
    [problem] = outcome.problems()
    assert problem.startswith("--memory-mb: 138.0 MiB cannot hold")
    enough = problem.split("give at least ")[1].split(" MiB")[0]
    merge = program.merge(large, *FULL_READ, "--memory-mb", enough)
    assert peaks(merge)[0] <= int(enough) * MIB
