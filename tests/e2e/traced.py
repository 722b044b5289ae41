"""Commands under strace, and the expert bytes that strace saw them read."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import checkpoint
import strace_log
from checkpoint import Family
from program import Merge, Outcome, Program

# Where a process may not be traced the proof cannot be had; whoever knows that says so.
needs_strace = pytest.mark.skipif("MERGEPIPE_NO_STRACE" in os.environ, reason="MERGEPIPE_NO_STRACE is set")


@dataclass
class Trace:
    logs: Path  # prefix of the logs, a file for each thread
    files: dict[str, strace_log.Reads]

    def bytes_of(self, model: Path) -> int:
        """Bytes of one model's weights, headers apart, over all processes and threads."""
        return sum(size for pieces in self.pieces_of(model).values() for _, size in pieces)

    def expert_bytes(self, family: Family) -> int:
        return sum(self.bytes_of(expert.path) for expert in family.experts)

    def pieces_of(self, model: Path) -> dict[Path, list[tuple[int, int]]]:
        """By weight file, the pieces (offset in the file, size) that lie behind the header, in log order."""
        found = {}
        for path in checkpoint.weight_files(model):
            begin, _ = checkpoint.read_header(path)
            reads = self.files.get(str(path.resolve()))
            clipped = [(max(offset, begin), offset + size - max(offset, begin))
                       for offset, size in (reads.pieces if reads else [])]
            found[path] = [piece for piece in clipped if piece[1] > 0]
        return found

    def tensors_of(self, model: Path) -> dict[str, int]:
        """Bytes read of each tensor, zeros left out; samples for a fingerprint count too."""
        total: dict[str, int] = {}
        for path, pieces in self.pieces_of(model).items():
            begin, header = checkpoint.read_header(path)
            for name, entry in header.items():
                if name == "__metadata__":
                    continue
                first, last = (begin + offset for offset in entry["data_offsets"])
                count = sum(max(0, min(last, at + size) - max(first, at)) for at, size in pieces)
                if count:
                    total[name] = total.get(name, 0) + count
        return total

    def assert_only_counted_reads(self, family: Family) -> None:
        """No mmap, sendfile or copy of expert weights, and no io_uring, whose reads strace cannot see."""
        assert "io_uring" not in self.files, self.files["io_uring"].other
        for expert in family.experts:
            for path in checkpoint.weight_files(expert.path):
                reads = self.files.get(str(path.resolve()))
                assert reads, f"strace saw no read of {path}: the trace or the test is wrong"
                assert not reads.other, f"{path} was read by other calls than read and pread: {reads.other[:3]}"


def run(program: Program, name: str, *arguments, inject: str | None = None, **how) -> tuple[Outcome, Trace]:
    """A traced command. `inject` is an expression of strace's --inject, to kill it at a system call."""
    logs = program.root / f"strace-{name}"
    logs.mkdir()
    prefix = strace_log.command(logs / "log") + (["-e", f"inject={inject}"] if inject else [])
    outcome = program.run(*arguments, prefix=prefix, **how)
    return outcome, Trace(logs / "log", strace_log.parse(logs / "log"))


def merge(program: Program, family: Family, *extra, options, out="merged", **how) -> tuple[Merge, Trace]:
    arguments = ("merge", "--base", family.base.path, "--experts", *family.paths(), "--out", program.outputs / out,
                 *options.arguments(), *extra)
    outcome, trace = run(program, out, *arguments, **how)
    return program.merged(outcome), trace


def calls(trace: Trace, call: str) -> int:
    """How often the busiest thread made a system call: strace counts injections by thread."""
    logs = trace.logs.parent.glob(trace.logs.name + ".*")
    return max(len(re.findall(rf"^{call}\(", log.read_text(errors="replace"), re.M)) for log in logs)


def run_killed(program: Program, name: str, *arguments, call: str, at: int, keep_catalog: bool = False,
               **how) -> tuple[Outcome, Trace]:
    """A traced command that SIGKILL ends at the `at`-th `call` of a thread.

    Which thread makes how many calls differs from run to run: a run in which none came so far is undone, and
    followed by one that is killed earlier.
    """
    while at > 1:
        outcome, trace = run(program, f"{name}-{at}", *arguments, inject=f"{call}:signal=SIGKILL:when={at}", **how)
        if outcome.code != 0:
            return outcome, trace
        if not keep_catalog:
            program.catalog.unlink()
        for made in (a for a, option in zip(arguments[1:], arguments) if option == "--out"):
            shutil.rmtree(made)
        at = at * 4 // 5
    raise AssertionError(f"it was never killed at a {call}{outcome}")


def run_interrupted(program: Program, name: str, *arguments, number: signal.Signals, when: Callable[[], bool],
                    ranks: int | None = None, to_launcher: bool = False) -> tuple[Outcome, Trace]:
    """A traced command whose writes are delayed, so that it lasts; as soon as `when` holds it gets a signal: one of
    its processes, or the launcher. It may be done before. The seconds are those after the signal."""
    logs = program.root / f"strace-{name}"
    logs.mkdir()
    # strace stands aside (-DDD): what is started is the program, or the launcher, itself.
    prefix = [*strace_log.command(logs / "log"), "-DDD", "-e", "inject=pwrite64:delay_enter=50ms"]
    launcher = [] if ranks is None else ["mpirun", "-n", str(ranks), "--oversubscribe"]
    command = [*prefix, *launcher, program.binary, *map(str, arguments)]
    with subprocess.Popen(command, cwd=program.root, env=program.environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while not when() and process.poll() is None:
                assert time.monotonic() < deadline, "what was waited for never came"
                time.sleep(0.005)
            targets = [process.pid] if to_launcher else processes_of(process.pid, program.binary)
            start = time.monotonic()
            # Twice, as launchers deliver a signal by several ways; the first may have been enough.
            with contextlib.suppress(ProcessLookupError):
                for target in 2 * targets[-1:]:
                    os.kill(target, number)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    outcome = Outcome(command, process.returncode, stdout, stderr, time.monotonic() - start)
    return outcome, Trace(logs / "log", strace_log.parse(logs / "log"))


def processes_of(top: int, binary: str) -> list[int]:
    """Processes that run the program: `top`, and those below it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue  # it is gone
    below = {top}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted(pid for pid in below if executable(pid) == os.path.realpath(binary))


def executable(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return None


class Stepped:
    """A merge that stops after every sync until it is told to go on."""

    def __init__(self, program, made: Family):
        self.log = program.root / "strace.log"
        self.syncs = 0
        command = ["timeout", "-k", "5", "120", "strace", "-f", "-y", "-o", self.log, "-e", "trace=fsync,fdatasync",
                   "-e", "inject=fsync,fdatasync:signal=SIGSTOP", program.binary, "merge", "--base", made.base.path,
                   "--experts", *made.paths(), "--out", program.outputs / "merged"]
        self.process = subprocess.Popen(command, cwd=program.root, env=program.environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def go_on(self) -> None:
        first = self.log.read_text().split(maxsplit=1)[0]  # the process comes before its threads
        os.kill(int(first), signal.SIGCONT)

    def wait_for_stop(self) -> str | None:
        """What was synced before the stop, or None if the merge has ended."""
        while self.process.poll() is None:
            lines = self.log.read_text().splitlines() if self.log.exists() else []
            syncs = [i for i, line in enumerate(lines) if "sync(" in line]
            stopped = [i for i, line in enumerate(lines) if "stopped by SIGSTOP" in line]
            if len(syncs) > self.syncs and stopped and stopped[-1] > syncs[-1]:
                self.syncs = len(syncs)
                return lines[syncs[-1]]
            time.sleep(0.01)
        return None

    def run_to(self, pattern: str) -> None:
        """Until it stops after the sync of a file whose path matches."""
        while (synced := self.wait_for_stop()) is not None and not re.search(pattern, synced):
            self.go_on()
        assert synced is not None, f"never stopped at {pattern}\n{self.log.read_text()}"

    def end(self) -> tuple[int, str]:
        while self.wait_for_stop() is not None:
            self.go_on()
        return self.process.wait(), self.process.stderr.read()

    def kill(self) -> None:
        """SIGKILL to the merge itself, and to strace if it still runs."""
        if self.process.poll() is None and self.log.exists() and (text := self.log.read_text()):
            os.kill(int(text.split(maxsplit=1)[0]), signal.SIGKILL)
        self.process.wait(timeout=30)
