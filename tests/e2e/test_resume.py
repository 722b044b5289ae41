"""A merge that was stopped goes on where it was, with any number of ranks, to the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import checkpoint
import traced
from checkpoint import Family, Model, make_family
from oracle import Options
from program import BAD_INPUT, FULL_READ, Outcome, Program, megabytes
from traced import needs_strace

INTERRUPTED = 75
# 24 tensors of 1 MiB in bf16, in two shards; and a large one, which ties observes before it makes it.
SHAPES = {f"layers.{i}.weight": (512, 1024) for i in range(24)} | {"embed.weight": (4096, 1024), "norm.weight": (1024,)}
BLOCK = 1 << 16
WAYS = {
    "avg": (Options("avg", block_size=BLOCK), FULL_READ),
    "ties": (Options("ties", block_size=BLOCK), FULL_READ),
    # Tensors that are not held: read for each round, and again to be made.
    "ties-read-again": (Options("ties", block_size=BLOCK), (*FULL_READ, "--resident-mb", "0.1")),
    "dare-budget": (Options("dare", seed=3, block_size=BLOCK), "budget"),
    "ties-sparse": (Options("ties", block_size=BLOCK), "sparse"),
}
TARGET_PREFIX = ".merged.mergepipe"


@pytest.fixture(scope="module")
def made(scratch) -> Family:
    return make_family(scratch / "resumed-merges", "BF16", experts=2, shards=2, shapes=SHAPES)


def arguments_of(way: str, family: Family) -> tuple:
    options, extra = WAYS[way]
    if extra == "budget":
        extra = ("--io-budget-mb", megabytes(family.merge_bytes() // 2), "--top-p", "0.7")
    elif extra == "sparse":
        extra = ("--io-budget-mb", megabytes(family.merge_bytes() // 2), "--output", "sparse")
    return (*options.arguments(), *extra)


def merge_arguments(program: Program, family: Family, way: str, *more) -> tuple:
    return ("merge", "--base", family.base.path, "--experts", *family.paths(), "--out", program.outputs / "merged",
            *arguments_of(way, family), *more)


@pytest.fixture(scope="module")
def undisturbed(new_program, made):
    """The merge in one go, and the trace of it, once for each way."""
    known: dict = {}

    def get(way: str):
        if way not in known:
            program = new_program(f"undisturbed-{way}")
            outcome, trace = traced.run(program, "whole", *merge_arguments(program, made, way))
            known[way] = program.merged(outcome), trace
        return known[way]

    return get


def staging_of(program: Program) -> list[str]:
    return sorted(p.name for p in program.outputs.iterdir() if p.name.startswith(TARGET_PREFIX))


def assert_stopped_in_order(program: Program) -> None:
    """Nothing but hidden names beside the target; the catalog is whole."""
    assert not (program.outputs / "merged").exists()
    assert all(p.name.startswith(TARGET_PREFIX) for p in program.outputs.iterdir())
    program.assert_catalog_intact()


def assert_undisturbed(program: Program, merge, whole) -> None:
    """The bytes, hashes and byte counts of a merge in one go; nothing left beside it."""
    assert merge.plan["plan_hash"] == whole.plan["plan_hash"]
    assert merge.output_files() == whole.output_files()
    assert merge.hashes() == whole.hashes()
    ours, theirs = merge.manifest["io"], whole.manifest["io"]
    for count in ("expert_bytes_read", "output_bytes_written"):
        assert ours[count] == theirs[count], count
    assert [p.name for p in program.outputs.iterdir()] == ["merged"]
    program.run("verify", merge.out).expect(0)


def assert_counts_are_physical(merge, trace: traced.Trace, family: Family) -> None:
    """What the command read of the experts is what its record states, less what earlier attempts read."""
    io = merge.manifest["io"]
    trace.assert_only_counted_reads(family)
    assert trace.expert_bytes(family) == io["probe_bytes_read"] + io["expert_bytes_read"] - io["resumed_expert_bytes"]


def copy_of_attempt(program: Program) -> Path:
    """What a killed attempt has left, to start from it more than once."""
    kept = program.root / "kept"
    shutil.copytree(program.outputs, kept)
    return kept


@needs_strace
@pytest.mark.parametrize("ranks", [None, 2, 4])
@pytest.mark.parametrize("way", WAYS)
def test_a_killed_merge_goes_on(program, made, undisturbed, way, ranks):
    """SIGKILL at a write, in one rank or in all there is; then the same command on another number of ranks."""
    whole, whole_trace = undisturbed(way)
    # The busiest thread of one process; a rank of several has fewer to do.
    count = traced.calls(whole_trace, "pwrite64")
    killed, _ = traced.run_killed(program, "killed", *merge_arguments(program, made, way), call="pwrite64",
                                  at=max(2, count * 2 // 3), ranks=ranks, timeout=60)
    assert_stopped_in_order(program)
    outcome, trace = traced.run(program, "resumed", *merge_arguments(program, made, way),
                                ranks={None: 2, 2: None, 4: 3}[ranks])
    merge = program.merged(outcome)
    assert_undisturbed(program, merge, whole)
    assert_counts_are_physical(merge, trace, made)


@needs_strace
def test_finished_units_are_never_read_again(program, made, undisturbed):
    """Killed again and again: every byte of an expert is read once for the output; what was read in vain is
    reported, and no more than memory holds at a time."""
    whole, whole_trace = undisturbed("avg")
    arguments = merge_arguments(program, made, "avg", "--threads", "1")
    attempts = []
    for attempt in range(3):
        count = max(3, traced.calls(whole_trace, "pwrite64") // 4)
        outcome, trace = traced.run(program, f"attempt-{attempt}", *arguments,
                                    inject=f"pwrite64:signal=SIGKILL:when={count}")
        attempts.append(trace)
        if outcome.code == 0:
            break
    if outcome.code != 0:
        outcome, trace = traced.run(program, "last", *arguments)
        attempts.append(trace)
    merge = program.merged(outcome)
    assert_undisturbed(program, merge, whole)
    assert_counts_are_physical(merge, trace, made)
    io = merge.manifest["io"]
    read = sum(attempt.expert_bytes(made) for attempt in attempts)
    necessary = io["expert_bytes_read"] + io["probe_bytes_read"]
    assert io["resumed_expert_bytes"] > 0, "no attempt went on from another: the test shows nothing"
    # A read that was noted may not have begun when the process died.
    assert read - necessary - made.fingerprint_bytes() * len(attempts) <= io["reread_bytes"]
    assert io["reread_bytes"] <= (len(attempts) - 1) * 256 * 1024 * 1024


def slow_down(program: Program, name: str) -> list[str]:
    """Under strace with every write delayed: a merge that lasts long enough to be met in its middle."""
    return ["strace", "-f", "-qq", "-e", "trace=pwrite64", "-e", "inject=pwrite64:delay_enter=50ms", "-o",
            str(program.root / f"{name}.strace")]


def wait_for_finished_work(program: Program, process: subprocess.Popen) -> None:
    """Until some unit is in a journal."""
    for _ in range(1200):
        journals = [p for d in program.outputs.glob(f"{TARGET_PREFIX}-*.journal") for p in d.iterdir()]
        if any(p.name != "prepared" and p.stat().st_size > 1000 for p in journals):
            return
        assert process.poll() is None, f"it ended before it could be met: exit {process.returncode}"
        time.sleep(0.05)
    raise AssertionError("no unit was finished")


def program_process_of(parent: int, binary: str) -> list[int]:
    """Processes below `parent` that run the program."""
    found, below = [], {parent}
    for _ in range(6):
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = status.read_text().rpartition(")")[2].split()
                pid = int(status.parent.name)
                if int(fields[1]) in below and pid not in below:
                    below.add(pid)
            except (OSError, IndexError):
                continue
    for pid in below:
        try:
            if os.readlink(f"/proc/{pid}/exe") == os.path.realpath(binary):
                found.append(pid)
        except OSError:
            continue
    return sorted(found)


def stopped(program: Program, family: Family, way: str, number: signal.Signals, ranks: int | None,
            to_launcher: bool) -> Outcome:
    launcher = [] if ranks is None else ["mpirun", "-n", str(ranks), "--oversubscribe"]
    command = [*launcher, *slow_down(program, "stopped"), program.binary,
               *map(str, merge_arguments(program, family, way))]
    with subprocess.Popen(command, cwd=program.root, env=program.environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for_finished_work(program, process)
            targets = [process.pid] if to_launcher else program_process_of(process.pid, program.binary)
            assert targets
            start = time.monotonic()
            for _ in range(2):  # launchers deliver a signal by several ways
                os.kill(targets[-1], number)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    return Outcome(command, process.returncode, stdout, stderr, time.monotonic() - start)


@needs_strace
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(program, made, undisturbed, number):
    outcome = stopped(program, made, "ties", number, None, to_launcher=False)
    assert outcome.seconds < 30
    outcome.expect(INTERRUPTED)
    assert len(outcome.problems()) == 1 and "same command" in outcome.problems()[0], outcome
    assert_stopped_in_order(program)
    resumed, trace = traced.run(program, "resumed", *merge_arguments(program, made, "ties"))
    merge = program.merged(resumed)
    assert "going on from an earlier attempt" in resumed.stderr
    assert merge.manifest["io"]["resumed_expert_bytes"] > 0
    assert merge.manifest["io"]["reread_bytes"] >= 0
    assert_undisturbed(program, merge, undisturbed("ties")[0])
    assert_counts_are_physical(merge, trace, made)


@needs_strace
@pytest.mark.parametrize("to_launcher", [True, False])
def test_a_signal_to_one_rank_stops_all(program, made, undisturbed, to_launcher):
    """mpirun forwards SIGUSR1 to all ranks; a batch system may send it to one."""
    outcome = stopped(program, made, "avg", signal.SIGUSR1, 2, to_launcher)
    assert outcome.seconds < 30
    outcome.expect(INTERRUPTED)
    assert len(outcome.problems()) == 1 and "same command" in outcome.problems()[0], outcome
    assert_stopped_in_order(program)
    merge = program.merged(program.run(*merge_arguments(program, made, "avg")))
    assert merge.manifest["io"]["resumed_expert_bytes"] > 0
    assert_undisturbed(program, merge, undisturbed("avg")[0])


@pytest.fixture
def attempt(program, made):
    """A program whose merge was stopped by a signal."""
    stopped(program, made, "avg", signal.SIGUSR1, None, to_launcher=False).expect(INTERRUPTED)
    assert len(staging_of(program)) == 2 or len(staging_of(program)) == 3
    return program


@needs_strace
def test_rank_0_may_write_for_all_when_it_goes_on(attempt, made, undisturbed):
    merge = attempt.merged(attempt.run(*merge_arguments(attempt, made, "avg", "--gather", "root"), ranks=3))
    assert merge.manifest["io"]["resumed_expert_bytes"] > 0
    assert_undisturbed(attempt, merge, undisturbed("avg")[0])


@needs_strace
def test_rank_0_keeps_the_journal_of_what_it_writes_for_all(program, made, undisturbed):
    whole, whole_trace = undisturbed("avg")
    arguments = merge_arguments(program, made, "avg", "--gather", "root")
    traced.run_killed(program, "killed", *arguments, call="pwrite64", ranks=3, timeout=60,
                      at=max(2, traced.calls(whole_trace, "pwrite64")))
    outcome, trace = traced.run(program, "resumed", *merge_arguments(program, made, "avg"))
    merge = program.merged(outcome)
    assert merge.manifest["io"]["resumed_expert_bytes"] > 0
    assert_undisturbed(program, merge, whole)
    assert_counts_are_physical(merge, trace, made)


@needs_strace
def test_no_resume_starts_anew(attempt, made, undisturbed):
    merge = attempt.merged(attempt.run(*merge_arguments(attempt, made, "avg", "--no-resume")))
    assert merge.manifest["io"]["resumed_expert_bytes"] == merge.manifest["io"]["reread_bytes"] == 0
    assert_undisturbed(attempt, merge, undisturbed("avg")[0])


@needs_strace
def test_another_plan_does_not_use_it(attempt, made):
    """Nor removes it: who went back to the first command would lose what is finished."""
    before = staging_of(attempt)
    merge = attempt.merged(attempt.run(*merge_arguments(attempt, made, "dare-budget")))
    assert merge.manifest["io"]["resumed_expert_bytes"] == 0
    left = staging_of(attempt)
    assert [name for name in before if not name.endswith(".lock")] == left


@needs_strace
@pytest.mark.parametrize("change", ["staging-replaced", "file-cut", "journal-torn", "journal-garbage"])
def test_what_does_not_fit_is_not_used(attempt, made, undisturbed, change):
    [journal] = attempt.outputs.glob(f"{TARGET_PREFIX}-*.journal")
    staging = journal.with_suffix("")
    if change == "staging-replaced":
        shutil.copytree(staging, staging.with_suffix(".copy"))
        shutil.rmtree(staging)
        staging.with_suffix(".copy").rename(staging)
    elif change == "file-cut":
        weights = sorted(staging.glob("*.safetensors"))[0]
        os.truncate(weights, weights.stat().st_size - 1)
    else:
        records = journal / "1.0"
        data = bytearray(records.read_bytes())
        data = data[:len(data) // 2] if change == "journal-torn" else bytes(len(data))
        records.write_bytes(data)
    merge = attempt.merged(attempt.run(*merge_arguments(attempt, made, "avg")))
    assert (merge.manifest["io"]["resumed_expert_bytes"] > 0) == (change == "journal-torn")
    assert_undisturbed(attempt, merge, undisturbed("avg")[0])


@needs_strace
def test_an_expert_that_was_replaced_is_not_mixed(program, made, undisturbed):
    """Same fingerprint samples, same plan: the file's time tells, and nothing of the first attempt is used."""
    family = Family(Model(shutil.copytree(made.base.path, program.root / "m" / made.base.path.name), {}),
                    [Model(shutil.copytree(e.path, program.root / "m" / e.path.name), {}) for e in made.experts])
    stopped(program, family, "avg", signal.SIGUSR1, None, to_launcher=False).expect(INTERRUPTED)
    for path in checkpoint.weight_files(family.experts[0].path):
        os.utime(path, ns=(1, 1))
    merge = program.merged(program.run(*merge_arguments(program, family, "avg")))
    assert merge.manifest["io"]["resumed_expert_bytes"] == 0
    assert merge.hashes() == undisturbed("avg")[0].hashes()


@needs_strace
def test_nothing_of_a_bad_input_is_kept(program, made):
    """An infinite value met in the first attempt, or in the second: refused by name, nothing left."""
    family = Family(Model(made.base.path, {}),
                    [Model(shutil.copytree(e.path, program.root / "m" / e.path.name), {}) for e in made.experts])
    path = checkpoint.weight_files(family.experts[0].path)[0]
    begin, header = checkpoint.read_header(path)
    first = min((h["data_offsets"][0] for n, h in header.items() if n != "__metadata__"), default=0)
    with path.open("r+b") as file:
        file.seek(begin + first)
        file.write(b"\x80\x7f")  # infinity in bf16
    outcome = stopped(program, family, "avg", signal.SIGUSR1, None, to_launcher=False)
    assert outcome.code in (INTERRUPTED, BAD_INPUT)
    again = program.run(*merge_arguments(program, family, "avg")).expect(BAD_INPUT)
    assert "infinite" in again.problems()[0], again
    program.assert_nothing_published()


@needs_strace
def test_materialize_and_replay_go_on_too(program, made, undisturbed):
    sparse = program.merge(made, options=WAYS["ties-sparse"][0], out="sparse",
                           *arguments_of("ties-sparse", made)[len(WAYS["ties-sparse"][0].arguments()):])
    full = program.merge(made, options=WAYS["ties-sparse"][0], out="full",
                         *[a for a in arguments_of("ties-sparse", made)[len(WAYS["ties-sparse"][0].arguments()):]
                           if a not in ("--output", "sparse")])
    for name, command in [("made", ("materialize", sparse.out, "--base", made.base.path)),
                          ("again", ("replay", full.run))]:
        arguments = (*command, "--out", program.outputs / name)
        _, trace = traced.run(program, f"{name}-whole", *command, "--out", program.root / f"{name}-whole")
        traced.run_killed(program, f"{name}-killed", *arguments, call="pwrite64", keep_catalog=True,
                          at=max(2, traced.calls(trace, "pwrite64") * 2 // 3))
        assert not (program.outputs / name).exists()
        outcome = program.run(*arguments).expect(0)
        assert "going on from an earlier attempt" in outcome.stderr, outcome
        assert checkpoint.all_files(program.outputs / name).keys() == checkpoint.all_files(full.out).keys()
        for file in checkpoint.weight_files(full.out):
            assert (program.outputs / name / file.name).read_bytes() == file.read_bytes()
