"""Disks that lose power, die, or fail at fsync only, under a merge: the target is absent or whole, and the rerun gives the
undisturbed bytes.

The disks are real file systems (disks.py); the moment is chosen by a library that is preloaded (disk_fault.cc), at a call
that changes the disk: how many there are may vary, so each ladder goes up until nothing fails any more.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from pathlib import Path

import pytest

import checkpoint
import disks
from oracle import Options
from program import DONE, FULL_READ, IO_ERROR, NO_SPACE, USAGE, Outcome, Program, check_database_as_left

with tempfile.TemporaryDirectory() as probe:
    if why := disks.why_not(Path(probe)):
        pytest.skip(why, allow_module_level=True)

LIMIT = 60  # seconds, in which a command must end by itself
SHAPES = {f"layers.{i}.weight": (512, 1024) for i in range(16)} | {"bias": (97,), "scale": ()}
OLD = Options("avg", lam=0.5)  # the merge that --overwrite replaces
WAYS = {"ties": Options("ties"), "avg": Options("avg")}
MOST_STEPS = 200  # of a ladder that never ends


@pytest.fixture(scope="module", autouse=True)
def private():
    with disks.private_mounts():
        yield


@pytest.fixture(scope="module")
def fault(binary) -> Path:
    library = Path(binary).parents[1] / "tests" / "e2e" / "libdisk_fault.so"
    assert library.exists(), f"{library} was not built (target disk_fault)"
    return library


@pytest.fixture(scope="module")
def made(scratch) -> checkpoint.Family:
    return checkpoint.make_family(scratch / "disks", "BF16", experts=2, shards=2, shapes=SHAPES)


class Bench:
    """A merge on a fresh disk that holds its output, catalog and run folders; the inputs are elsewhere."""

    def __init__(self, binary: str, scratch: Path, fault: Path, family: checkpoint.Family):
        self.binary, self.scratch, self.fault, self.family = binary, scratch, fault, family
        self.numbers = itertools.count()
        self.files: dict[Options, dict[str, bytes]] = {}
        self.log = scratch / "disk-events"

    def reference(self, options: Options) -> dict[str, bytes]:
        """What an undisturbed merge writes; manifest.json is left out, as it names the run."""
        if options not in self.files:
            program = Program(self.binary, self.scratch / f"undisturbed-{next(self.numbers)}", self.scratch / "t")
            self.files[options] = program.merge(self.family, *FULL_READ, options=options).output_files()
        return self.files[options]

    def fresh(self, disk: disks.Disk, options: Options, overwrite: bool = False) -> Trial:
        return Trial(self, disk, options, overwrite)


class Trial:
    def __init__(self, bench: Bench, disk: disks.Disk, options: Options, overwrite: bool):
        self.bench, self.disk, self.options, self.overwrite = bench, disk, options, overwrite
        self.program = Program(bench.binary, disk.path / "work", bench.scratch / "t")
        if overwrite:
            self.program.merge(bench.family, *FULL_READ, options=OLD)
            self.old = checkpoint.all_files(self.program.outputs / "merged")
        disk.sync()

    def merge(self, ranks: int | None = None, **fault) -> Outcome:
        """With a fault: AT, DO, FROM, CALLS, PATH, RANK of disk_fault.cc."""
        env = {"OMPI_MCA_odls_base_sigkill_timeout": "0"}  # mpirun waits no second before it kills
        if fault:
            settings = {"PATH": self.disk.path, "DISK": self.disk.path, "LOG": self.bench.log} | fault
            env |= {"LD_PRELOAD": str(self.bench.fault)} | {f"DISK_FAULT_{key}": str(v) for key, v in settings.items()}
        self.bench.log.unlink(missing_ok=True)
        outcome = self.program.try_merge(self.bench.family, *FULL_READ, "--threads", "1", *["--overwrite"] * self.overwrite,
                                         options=self.options, ranks=ranks, env=env, timeout=LIMIT)
        assert outcome.seconds < LIMIT, f"`timeout` had to end it{outcome}"
        return outcome

    def events(self) -> list[str]:
        """What the faulty merge did to the disk, up to the fault and after it."""
        return self.bench.log.read_text().splitlines() if self.bench.log.exists() else []

    def events_before(self, end: str) -> list[str]:
        """Until one on a path with that end."""
        return list(itertools.takewhile(lambda event: not event.endswith(end), self.events()))

    def is_new(self) -> bool:
        path = self.program.outputs / "merged"
        if not path.exists():
            return False
        files = checkpoint.all_files(path)
        if self.overwrite and files == self.old:
            return False
        manifest = files.pop("manifest.json", None)
        return manifest is not None and files == self.bench.reference(self.options)

    def assert_whole(self, outcome: Outcome) -> bool:
        """Nothing in between is at the target, and the catalog is one; whether the target is the new output."""
        target, new = self.program.outputs / "merged", self.is_new()
        if not new and self.overwrite:
            assert target.exists(), f"the old output is gone{outcome}"
            assert checkpoint.all_files(target) == self.old, f"neither the old nor the new output{outcome}"
        elif not new:
            assert not target.exists(), f"a part of an output: {sorted(checkpoint.all_files(target))}{outcome}"
        assert new or "[OK]" not in outcome.stdout, f"[OK], but no output{outcome}"
        if self.program.catalog.exists():
            assert check_database_as_left(self.program.catalog) == "ok", outcome
        return new

    def assert_rerun(self, new: bool, **how) -> None:
        """The same command gives the undisturbed bytes, or finds them in place."""
        again = self.merge(**how)
        if new and not self.overwrite:
            assert again.code in (DONE, USAGE), again
        else:
            self.program.merged(again)
        assert self.assert_whole(again), f"other bytes than those of an undisturbed merge{again}"


@pytest.fixture(scope="module")
def bench(binary, scratch, fault, made) -> Bench:
    return Bench(binary, scratch, fault, made)


def ladder():
    """1, 2, 3, ... until the caller has seen that nothing fails any more."""
    for step in range(1, MOST_STEPS + 1):
        yield step
    pytest.fail(f"after {MOST_STEPS} steps there still was something to fail")


# ------------------------------------------------------------------------------------------------ power loss

@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
def test_power_loss_before_every_step_of_publishing(bench, scratch, overwrite):
    """From the manifest, the last file, on. Before step n is after step n - 1."""
    steps, published = [], []
    for step in ladder():
        with disks.disk(scratch / f"publishing-{overwrite}") as disk:
            trial = bench.fresh(disk, WAYS["avg"], overwrite)
            outcome = trial.merge(AT=step, DO="power", PATH=trial.program.outputs, CALLS="wsn", FROM="/manifest.json")
            if outcome.code == DONE:
                disk.lose_power()  # what is said to be done is on the disk
            else:
                disk.repair()
            if outcome.code != DONE:
                steps.append(trial.events()[-1])
            published.append(trial.assert_whole(outcome))
            trial.assert_rerun(published[-1])
        if outcome.code == DONE:
            break
    assert_order_of_publishing(steps, published)


def assert_order_of_publishing(steps: list[str], published: list[bool]) -> None:
    """The ladder has been at each of the steps that make a publish durable, in their order."""
    staging = re.escape(str(Path(steps[0].partition(" ")[2]).parent))
    wanted = [rf"fsync {staging}/manifest\.json", f"fsync {staging}", "rename .*/merged", "fsync .*/out"]
    at = [next((n for n, step in enumerate(steps) if re.fullmatch(call, step)), -1) for call in wanted]
    assert -1 not in at and at == sorted(at), steps
    assert not any(published[: at[2] + 1]), f"published before the rename: {published}"
    assert all(published[at[3] + 1 :]), f"not there, although the parent was synced: {published}"


@pytest.mark.parametrize("step", [2, 6])
def test_power_loss_while_the_old_output_is_removed(bench, scratch, step):
    """The first event is the rename."""
    with disks.disk(scratch / "removing") as disk:
        trial = bench.fresh(disk, WAYS["avg"], overwrite=True)
        outcome = trial.merge(AT=step, DO="power", PATH=trial.program.outputs, CALLS="nr", FROM="/merged")
        assert outcome.code != DONE, f"hardly anything was removed: {trial.events()}{outcome}"
        disk.repair()
        assert trial.assert_whole(outcome), f"the old output goes, but the new one is not in place{outcome}"
        trial.assert_rerun(True)


def test_power_loss_before_every_sync_of_recording(bench, scratch):
    """Published, and on the way into the catalog: the output stays, and the catalog is never damaged. The first events
    are the rename and the sync of its directory."""
    for step in itertools.count(3):
        with disks.disk(scratch / "recording") as disk:
            trial = bench.fresh(disk, WAYS["avg"])
            outcome = trial.merge(AT=step, DO="power", CALLS="sn", FROM="/merged")
            disk.lose_power() if outcome.code == DONE else disk.repair()
            assert trial.assert_whole(outcome), f"the output is gone, step {step}{outcome}"
            trial.program.run("recover", "--yes").expect(DONE)
            trial.program.assert_recorded(trial.program.outputs / "merged")
            trial.assert_rerun(True)
            if outcome.code == DONE:
                assert step > 5, "hardly anything was synced"
                break
            assert step < MOST_STEPS


@pytest.mark.parametrize("way, ranks", [("ties", None), ("avg", None), ("ties", 2)])
def test_power_loss_while_merging(bench, scratch, way, ranks):
    """Before some of the writes and syncs, from the first to the last; of one rank, when there are two."""
    fault = {"CALLS": "ws"} | ({"FROM": "/plan.json"} if ranks is None else {"RANK": ranks - 1})
    with disks.disk(scratch / f"merging-{way}") as disk:
        trial = bench.fresh(disk, WAYS[way])
        trial.program.merged(trial.merge(ranks, **fault))
        events = len(trial.events_before("/manifest.json"))
    hit = 0
    for step in spread(events, 6 if ranks is None else 4):
        with disks.disk(scratch / f"merging-{way}") as disk:
            trial = bench.fresh(disk, WAYS[way])
            outcome = trial.merge(ranks, AT=step, DO="power", **fault)
            if outcome.code == DONE or len(trial.events_before("/manifest.json")) < len(trial.events()):
                continue  # there were fewer this time
            disk.repair()
            assert not trial.assert_whole(outcome), f"published by a merge that had lost its disk{outcome}"
            trial.assert_rerun(False, ranks=ranks)
            hit += 1
    assert hit >= 2, f"only {hit} of {events} steps were hit"


def spread(last: int, count: int) -> list[int]:
    """At most `count` numbers from 1 to `last`, evenly."""
    return sorted({1 + (last - 1) * n // (count - 1) for n in range(count)})


# ------------------------------------------------------------------------------------------------ dying disks

@pytest.mark.parametrize("ranks", [None, 2], ids=["process", "mpirun"])
@pytest.mark.parametrize("at", [{"AT": 1, "FROM": "/plan.json"}, {"AT": 7, "CALLS": "w", "FROM": "/plan.json"},
                                {"AT": 2, "FROM": "/manifest.json"}], ids=["first", "merging", "publishing"])
def test_a_disk_that_dies(bench, scratch, ranks, at):
    """All of its calls fail from one moment on. Restarted and checked, it holds nothing half-done."""
    with disks.disk(scratch / "dying") as disk:
        trial = bench.fresh(disk, WAYS["ties"])
        outcome = trial.merge(ranks, DO="die", **at, **({} if ranks is None else {"RANK": 0}))
        assert_io_error(outcome, (IO_ERROR,), "Input/output error")
        disk.repair()
        trial.assert_rerun(trial.assert_whole(outcome), ranks=ranks)


def assert_io_error(outcome: Outcome, codes: tuple[int, ...], *words: str) -> None:
    assert outcome.code in codes, f"expected exit {codes}{outcome}"
    problems = outcome.problems()
    assert len(problems) == 1 and all(word in problems[0] for word in words), \
        f"expected one line with {words}{outcome}"


# --------------------------------------------------------------------------------- errors that come with fsync

def test_every_fsync_that_fails(bench, scratch):
    """Each once, as a kernel tells of lost data: that is final, whatever a second fsync would say."""
    failed = []
    for step in ladder():
        with disks.disk(scratch / "fsync") as disk:
            trial = bench.fresh(disk, WAYS["avg"])
            outcome = trial.merge(AT=step, DO="fail", CALLS="s", PATH=trial.program.outputs)
            if outcome.code == DONE:
                trial.program.merged(outcome)
                assert len(trial.events()) < step, f"a failed fsync was overlooked: {trial.events()[step - 1]}{outcome}"
                break
            event, after = trial.events()[step - 1], trial.events()[step:]
            path = event.partition(" ")[2]
            failed.append(Path(path).name)
            assert_io_error(outcome, (IO_ERROR,), path)
            assert event not in after, f"{path} was synced again, as if that could be trusted: {after}{outcome}"
            disk.lose_power()
            new = trial.assert_whole(outcome)
            assert not new or path == str(trial.program.outputs), f"published without {path}{outcome}"
            trial.assert_rerun(new)
    assert {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "manifest.json", "out"} <= set(failed)


@pytest.mark.parametrize("ranks", [None, 2], ids=["process", "mpirun"])
def test_a_disk_that_has_less_than_it_promises(bench, scratch, ranks):
    """It takes every write, and has no place for all when they are synced."""
    with disks.disk(scratch / "thin", megabytes=96, backing=16) as disk:
        trial = bench.fresh(disk, WAYS["avg"])
        outcome = trial.merge(ranks)
        assert_io_error(outcome, (IO_ERROR, NO_SPACE), str(disk.path))
        disk.enlarge(104)
        disk.repair()
        trial.assert_rerun(trial.assert_whole(outcome), ranks=ranks)
