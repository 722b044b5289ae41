"""Commands that meet others: two on one target or one catalog, a disk that something else fills, a catalog on a disk
that is read-only. Each gives one clear line, or waits; nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

import checkpoint
from fault_ladder import output
from program import DONE, FULL_READ, IO_ERROR, MIB, NO_SPACE, USAGE, Outcome, Program
from traced import needs_strace

DEADLINE = 60


@pytest.fixture(scope="module")
def made(scratch) -> checkpoint.Family:
    """8 MiB of output, in one file."""
    return checkpoint.make_family(scratch / "family-conflicts", "F32", shapes={"a.weight": (2048, 1024)})


def arguments_of(family: checkpoint.Family, out: object) -> list:
    return ["merge", "--base", family.base.path, "--experts", *family.paths(), "--out", out, *FULL_READ,
            "--threads", "2"]


STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def nothing_left_running():
    """A test that fails half-way leaves a job that stands still."""
    yield
    for process in STARTED:
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    STARTED.clear()


class Job:
    """A command that was started and not waited for."""

    def __init__(self, program: Program, *arguments, prefix=()):
        self.command = [*map(str, prefix), program.binary, *map(str, arguments)]
        self.start = time.monotonic()
        self.process = subprocess.Popen(self.command, cwd=program.root, env=program.environment,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        start_new_session=True)
        STARTED.append(self.process)

    def wait(self) -> Outcome:
        stdout, stderr = self.process.communicate(timeout=DEADLINE)
        return Outcome(self.command, self.process.returncode, stdout.decode(), stderr.decode(),
                       time.monotonic() - self.start)


def poll(what: str, condition) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.005)


class StoppedJob(Job):
    """A command that strace stops as it makes its weight file, with the target's lock in its hands."""

    def __init__(self, program: Program, *arguments, inject: tuple[str, ...] = ("fallocate:signal=SIGSTOP:when=1",)):
        log = program.root / "stopped.log"
        prefix = ["strace", "-f", "-qq", "-o", log, "-e", "trace=fallocate,ftruncate"]
        for expression in inject:
            prefix += ["-e", f"inject={expression}"]
        super().__init__(program, *arguments, prefix=prefix)
        poll("the job's stop", lambda: log.exists() and "stopped by SIGSTOP" in log.read_text(errors="replace"))

    def signal(self, number: int) -> None:
        tracer = self.process.pid
        child, = Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split()
        os.kill(int(child), number)


# ------------------------------------------------------------------------------------------------- one target

@needs_strace
def test_two_jobs_on_one_target(program, made):
    """The second is told; the first goes on as if nothing were."""
    first = StoppedJob(program, *arguments_of(made, "out/merged"))
    second = program.run(*arguments_of(made, "out/merged")).expect(USAGE)
    assert len(second.problems()) == 1, second
    assert "another mergepipe job is writing to this target" in second.problems()[0], second
    assert "merged" in second.problems()[0] and "; " in second.problems()[0], second
    assert output(program) is None
    first.signal(signal.SIGCONT)
    first.wait().expect(DONE)
    program.run("verify", "out/merged").expect(DONE)
    assert [path.name for path in program.outputs.iterdir()] == ["merged"]


@needs_strace
def test_the_lock_dies_with_its_holder(program, made):
    undisturbed = program.run(*arguments_of(made, "out/merged")).expect(DONE)
    expected = output(program)
    assert expected, undisturbed
    for path in program.outputs.iterdir():
        path.rename(program.root / path.name)
    first = StoppedJob(program, *arguments_of(made, "out/merged"))
    program.run(*arguments_of(made, "out/merged")).expect(USAGE)
    first.signal(signal.SIGKILL)
    assert first.wait().code in (-9, 137)
    assert output(program) is None
    program.run(*arguments_of(made, "out/merged")).expect(DONE)
    assert output(program) == expected
    assert [path.name for path in program.outputs.iterdir()] == ["merged"]


# ------------------------------------------------------------------------------------------------ one catalog

@needs_strace
def test_another_target_and_the_same_catalog(program, made):
    """A job that stands still in the middle of its merge keeps no other from the catalog."""
    first = StoppedJob(program, *arguments_of(made, "out/first"))
    program.run(*arguments_of(made, "out/second")).expect(DONE)
    first.signal(signal.SIGCONT)
    first.wait().expect(DONE)
    check_all_recorded(program, ["first", "second"])


def test_several_jobs_at_once(program, made):
    names = [f"merged_{i}" for i in range(4)]
    jobs = [Job(program, *arguments_of(made, f"out/{name}")) for name in names]
    for job in jobs:
        job.wait().expect(DONE)
    check_all_recorded(program, names)


def test_a_job_waits_for_the_catalog(program, made):
    """While another process has the write lock, a merge waits; it does not fail."""
    program.run("init-db").expect(DONE)
    other = sqlite3.connect(program.catalog, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    job = Job(program, *arguments_of(made, "out/merged"))
    time.sleep(1)  # long enough to meet the lock; the outcome does not depend on it
    assert job.process.poll() is None, job.wait()
    other.execute("COMMIT")
    other.close()
    job.wait().expect(DONE)
    check_all_recorded(program, ["merged"])


def check_all_recorded(program: Program, names: list[str]) -> None:
    bytes_of = {name: {k: v for k, v in checkpoint.all_files(program.outputs / name).items() if k != "manifest.json"}
                for name in names}
    assert all(made == bytes_of[names[0]] for made in bytes_of.values())
    assert sorted(path.name for path in program.outputs.iterdir()) == sorted(names)
    for name in names:
        verified = program.run("verify", f"out/{name}").expect(DONE)
        assert "does not know" not in verified.stdout, verified
    connection = sqlite3.connect(program.catalog)
    recorded = {Path(row[0]).name for row in connection.execute("SELECT output_path FROM runs")}
    connection.close()
    assert recorded == set(names)
    program.assert_catalog_intact()


# ------------------------------------------------------------------------------------------------------- disks

@contextlib.contextmanager
def mounted(path: Path, *commands: list):
    """Skips where nothing may be mounted."""
    try:
        for command in commands:
            done = subprocess.run([*map(str, command)], capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        yield path
    finally:
        subprocess.run(["umount", str(path)], capture_output=True)


@pytest.fixture
def small_disk(program):
    """A disk of 40 MiB where the outputs go."""
    with mounted(program.outputs, ["mount", "-t", "tmpfs", "-o", "size=40m", "none", program.outputs]) as path:
        yield path


def fill(path: Path, leave: int) -> None:
    """All of the disk but so many bytes."""
    disk = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - leave)


@needs_strace
def test_a_disk_that_fills_up_half_way(program, made, small_disk):
    """There was room for the output when the merge began; then something else took it. The filesystem cannot
    allocate in advance, as NFS cannot."""
    job = StoppedJob(program, *arguments_of(made, "out/merged"),
                     inject=("fallocate:error=EOPNOTSUPP", "ftruncate:signal=SIGSTOP:when=1"))
    fill(small_disk / "other", leave=4 * MIB)
    job.signal(signal.SIGCONT)
    full = job.wait().expect(NO_SPACE)
    assert len(full.problems()) == 1, full
    line = full.problems()[0]
    assert "cannot write: No space left on device; free some space and run the same command again" in line, full
    assert "/out/.merged.mergepipe-" in line, full
    assert output(program) is None
    (small_disk / "other").unlink()
    program.run(*arguments_of(made, "out/merged")).expect(DONE)
    check_all_recorded(program, ["merged"])


@needs_strace
def test_a_disk_that_fills_up_before_the_file_is_allocated(program, made, small_disk):
    """As the first file of the output is made, there is no room any more for the next ones."""
    job = StoppedJob(program, *arguments_of(made, "out/merged"))
    fill(small_disk / "other", leave=0)
    job.signal(signal.SIGCONT)
    full = job.wait().expect(NO_SPACE)
    assert len(full.problems()) == 1 and "; free some space" in full.problems()[0], full
    assert output(program) is None
    (small_disk / "other").unlink()
    program.run(*arguments_of(made, "out/merged")).expect(DONE)
    check_all_recorded(program, ["merged"])


def test_a_disk_without_room_is_refused_at_once(program, made, small_disk):
    fill(small_disk / "other", leave=8 * MIB)
    refused = program.run(*arguments_of(made, "out/merged")).expect(NO_SPACE)
    assert len(refused.problems()) == 1 and "the output needs" in refused.problems()[0], refused
    assert [path.name for path in small_disk.iterdir()] == ["other"]
    (small_disk / "other").unlink()
    program.run(*arguments_of(made, "out/merged")).expect(DONE)


@pytest.fixture
def read_only(program):
    """Makes the catalog's directory read-only, once it is filled."""
    directory = program.root / "db"
    directory.mkdir()
    with contextlib.ExitStack() as stack:
        def make() -> Path:
            stack.enter_context(mounted(directory, ["mount", "--bind", directory, directory],
                                        ["mount", "-o", "remount,ro,bind", directory]))
            return directory / "db.sqlite"

        yield make


def test_no_catalog_on_a_read_only_disk(program, made, read_only):
    catalog = read_only()
    refused = program.run(*arguments_of(made, "out/merged"), "--db", catalog).expect(IO_ERROR)
    assert len(refused.problems()) == 1 and str(catalog) in refused.problems()[0], refused
    assert "Read-only file system; " in refused.problems()[0], refused
    program.assert_nothing_published()


def test_a_catalog_on_a_read_only_disk(program, made, read_only):
    """What only reads works; what has something new to record is refused before it reads any weights. A merge whose
    plan is known is only told that there is no row of it."""
    path = program.root / "db" / "db.sqlite"
    program.run(*arguments_of(made, "out/merged"), "--db", path).expect(DONE)
    before = path.read_bytes()
    catalog = read_only()
    for command in (["models"], ["verify", "out/merged"], ["explain", "out/merged"], ["recover"]):
        program.run(*command, "--db", catalog).expect(DONE)
    known = program.run(*arguments_of(made, "out/known"), "--db", catalog).expect(DONE)
    assert f"the catalog could not record it: {catalog}: cannot be written" in known.stderr, known
    for command in ([*arguments_of(made, "out/second"), "--weights", "1", "2"], ["register", made.base.path, "--id", "mine"],
                    ["analyze", "--base", made.base.path, "--experts", *made.paths()]):
        refused = program.run(*command, "--db", catalog).expect(IO_ERROR)
        assert len(refused.problems()) == 1, refused
        assert f"{catalog}: cannot be written: the file or its folder is read-only; " in refused.stderr, refused
    assert sorted(p.name for p in program.outputs.iterdir()) == ["known", "merged"]
    assert path.read_bytes() == before
