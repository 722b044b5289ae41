"""A merge that was stopped goes on where it was, with any number of ranks, to the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
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
    assert ours["output_bytes_written"] == theirs["output_bytes_written"]
    # A rank that died after its rounds over a tensor, but before it could note their end, read for those who could.
    assert ours["expert_bytes_read"] <= theirs["expert_bytes_read"]
    assert ours["expert_bytes_read"] + ours["reread_bytes"] >= theirs["expert_bytes_read"]
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
@pytest.mark.parametrize("way, ranks", [("avg", None), ("avg", 4), ("ties", None), ("ties", 2), ("ties", 4),
                                        ("ties-read-again", None), ("ties-read-again", 2), ("dare-budget", 2),
                                        ("ties-sparse", None), ("ties-sparse", 4)])
def test_a_killed_merge_goes_on(program, made, undisturbed, way, ranks):
    """SIGKILL of one process; then the same command on another number of ranks."""
    killed, _ = stopped(program, made, way, signal.SIGKILL, ranks=ranks)
    assert killed.code != 0
    assert_stopped_in_order(program)
    outcome, trace = traced.run(program, "resumed", *merge_arguments(program, made, way),
                                ranks={None: 2, 2: None, 4: 3}[ranks])
    merge = program.merged(outcome)
    assert "going on from an earlier attempt" in outcome.stderr
    assert_undisturbed(program, merge, undisturbed(way)[0])
    assert_counts_are_physical(merge, trace, made)


@needs_strace
def test_finished_units_are_never_read_again(program, made, undisturbed):
    """Killed again and again: every byte of an expert is read once for the output; what was read in vain is
    reported, and no more than memory holds at a time."""
    whole, _ = undisturbed("avg")
    attempts = []
    for attempt in range(3):
        kept = journal_bytes(program)
        killed, trace = traced.run_interrupted(program, f"attempt-{attempt}", *merge_arguments(program, made, "avg"),
                                               number=signal.SIGKILL,
                                               when=lambda kept=kept: journal_bytes(program) > kept + 1000)
        attempts.append(trace)
        if killed.code == 0:
            outcome = killed
            break
    else:
        outcome, trace = traced.run(program, "last", *merge_arguments(program, made, "avg"))
        attempts.append(trace)
    merge = program.merged(outcome)
    assert_undisturbed(program, merge, whole)
    assert_counts_are_physical(merge, trace, made)
    io = merge.manifest["io"]
    read = sum(attempt.expert_bytes(made) for attempt in attempts)
    necessary = io["expert_bytes_read"] + io["probe_bytes_read"]
    assert io["resumed_expert_bytes"] > 0
    # A read that was noted may not have begun when the process died.
    assert read - necessary - made.fingerprint_bytes() * len(attempts) <= io["reread_bytes"]
    assert io["reread_bytes"] <= (len(attempts) - 1) * 256 * 1024 * 1024


def journal_bytes(program: Program, target: str = "merged") -> int:
    """Of what is finished; 0 once the output is in place."""
    try:
        return sum(p.stat().st_size for d in program.outputs.glob(f".{target}.mergepipe-*.journal")
                   for p in d.iterdir() if p.name != "prepared")
    except FileNotFoundError:
        return 0


def interrupted(program: Program, target: str, *arguments, number: signal.Signals, name: str = "stopped",
                **how) -> tuple[Outcome, traced.Trace]:
    """A command that gets a signal once some unit of it is in a journal."""
    for attempt in range(5):
        outcome, trace = traced.run_interrupted(program, f"{name}-{attempt}", *arguments, number=number,
                                                when=lambda: journal_bytes(program, target) > 1000, **how)
        if not (program.outputs / target).exists():
            return outcome, trace
        shutil.rmtree(program.outputs / target)
    raise AssertionError(f"it was done before it could be met, each time{outcome}")


def stopped(program: Program, family: Family, way: str, number: signal.Signals, *more,
            **how) -> tuple[Outcome, traced.Trace]:
    return interrupted(program, "merged", *merge_arguments(program, family, way, *more), number=number, **how)


@needs_strace
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(program, made, undisturbed, number):
    outcome, _ = stopped(program, made, "ties", number)
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
    outcome, _ = stopped(program, made, "avg", signal.SIGUSR1, ranks=2, to_launcher=to_launcher)
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
    stopped(program, made, "avg", signal.SIGUSR1)[0].expect(INTERRUPTED)
    assert len(staging_of(program)) == 2 or len(staging_of(program)) == 3
    return program


@needs_strace
def test_rank_0_may_write_for_all_when_it_goes_on(attempt, made, undisturbed):
    merge = attempt.merged(attempt.run(*merge_arguments(attempt, made, "avg", "--gather", "root"), ranks=3))
    assert merge.manifest["io"]["resumed_expert_bytes"] > 0
    assert_undisturbed(attempt, merge, undisturbed("avg")[0])


@needs_strace
def test_rank_0_keeps_the_journal_of_what_it_writes_for_all(program, made, undisturbed):
    stopped(program, made, "avg", signal.SIGKILL, "--gather", "root", ranks=3)
    outcome, trace = traced.run(program, "resumed", *merge_arguments(program, made, "avg"))
    merge = program.merged(outcome)
    assert merge.manifest["io"]["resumed_expert_bytes"] > 0
    assert_undisturbed(program, merge, undisturbed("avg")[0])
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


def torn_record(journal: bytes) -> bytes:
    """The longest record once more, but for its last byte: as an append that was cut short. Each has its length before
    it, and a checksum (exec/journal.h)."""
    records, begin = [], 0
    while begin < len(journal):
        end = begin + 24 + int.from_bytes(journal[begin:begin + 8], "little")
        records.append(journal[begin:end])
        begin = end
    assert begin == len(journal)
    return max(records, key=len)[:-1]


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
        data = records.read_bytes()
        records.write_bytes(data + torn_record(data) if change == "journal-torn" else bytes(len(data)))
    merge = attempt.merged(attempt.run(*merge_arguments(attempt, made, "avg")))
    assert (merge.manifest["io"]["resumed_expert_bytes"] > 0) == (change == "journal-torn")
    assert_undisturbed(attempt, merge, undisturbed("avg")[0])


@needs_strace
def test_an_expert_that_was_replaced_is_not_mixed(program, made, undisturbed):
    """Same fingerprint samples, same plan: the file's time tells, and nothing of the first attempt is used."""
    family = Family(Model(shutil.copytree(made.base.path, program.root / "m" / made.base.path.name), {}),
                    [Model(shutil.copytree(e.path, program.root / "m" / e.path.name), {}) for e in made.experts])
    stopped(program, family, "avg", signal.SIGUSR1)[0].expect(INTERRUPTED)
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
    outcome, _ = stopped(program, family, "avg", signal.SIGUSR1)
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
        interrupted(program, name, *arguments, number=signal.SIGKILL, name=f"{name}-killed")
        outcome = program.run(*arguments).expect(0)
        assert "going on from an earlier attempt" in outcome.stderr, outcome
        assert checkpoint.all_files(program.outputs / name).keys() == checkpoint.all_files(full.out).keys()
        for file in checkpoint.weight_files(full.out):
            assert (program.outputs / name / file.name).read_bytes() == file.read_bytes()
