"""A command that runs in the background, to be watched and interfered with: its processes, found among all."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from program import Outcome, Program

RANK = b"OMPI_COMM_WORLD_RANK="


def processes() -> Iterator[tuple[int, bytes]]:
    """Every process and its command line; one that has ended but was not waited for has none."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"/proc/{entry.name}/cmdline", "rb") as file:
                    yield int(entry.name), file.read()
            except OSError:
                continue  # it has just ended


def until(happened: Callable[[], bool], seconds: float, every: float = 0.001) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


class Job:
    """A command of `program` under `timeout -k`, which must never fire. Its processes are those whose command line names
    the program's directory of outputs."""

    def __init__(self, program: Program, *arguments, ranks: int | None = None, prefix=(), env=None, timeout: int = 60):
        self.program, self.timeout = program, timeout
        self.mark = str(program.outputs).encode()
        launcher = [] if ranks is None else ["mpirun", "-n", str(ranks), "--oversubscribe"]
        self.command = ["timeout", "-k", "5", str(timeout), *map(str, prefix), *launcher, program.binary,
                        *map(str, arguments)]
        self.stdout, self.stderr = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self.start = time.monotonic()
        self.process = subprocess.Popen(self.command, cwd=program.root, env=program.environment | (env or {}),
                                        stdin=subprocess.DEVNULL, stdout=self.stdout, stderr=self.stderr)

    def running(self) -> bool:
        return self.process.poll() is None

    def ranks(self) -> dict[int, int]:
        """Processes by rank; without a launcher there is one, rank 0."""
        found = {}
        for process, command in processes():
            if self.mark not in command:
                continue
            try:
                if os.readlink(f"/proc/{process}/exe") != self.program.binary:
                    continue
                with open(f"/proc/{process}/environ", "rb") as file:
                    number = [word for word in file.read().split(b"\0") if word.startswith(RANK)]
            except OSError:
                continue
            found[int(number[0][len(RANK):]) if number else 0] = process
        return found

    def launcher(self) -> int | None:
        """mpirun."""
        for process, command in processes():
            if self.mark in command and os.path.basename(command.split(b"\0")[0]) == b"mpirun":
                return process
        return None

    def left(self) -> list[int]:
        return [process for process, command in processes() if self.mark in command]

    def wait(self) -> Outcome:
        """Until the command has ended, which it does by itself."""
        code = self.process.wait(self.timeout + 15)
        seconds = time.monotonic() - self.start
        texts = []
        for file in (self.stdout, self.stderr):
            file.seek(0)
            texts.append(file.read().decode(errors="backslashreplace"))
            file.close()
        outcome = Outcome(self.command, code, *texts, seconds)
        assert seconds < self.timeout, f"`timeout` had to end it{outcome}"
        return outcome

    def wait_for_all(self, seconds: float) -> None:
        """Until none of its processes is left, those included that a dead launcher left behind."""
        gone = until(lambda: not self.left(), seconds, 0.005)
        assert gone, f"{seconds} s later there still are processes {self.left()}: {self.command}"


def kill(process: int) -> bool:
    try:
        os.kill(process, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


def merge_arguments(program: Program, family, *extra, options, out: str = "merged") -> list[str]:
    return ["merge", "--base", str(family.base.path), "--experts", *family.paths(), "--out",
            str(program.outputs / out), *options.arguments(), *map(str, extra)]


def staging_of(program: Program, out: str = "merged") -> Path | None:
    """The directory in which an output comes into being."""
    found = [path for path in program.outputs.glob(f".{out}.mergepipe-*")
             if path.suffix != ".journal" and not path.name.endswith("-previous")]
    return found[0] if found else None
