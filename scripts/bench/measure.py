"""One run of one command: wall time, largest resident set, and the state of the page cache before it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

MIB = 1 << 20
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


class Failed(Exception):
    """A command did not do what it should; its output is the message."""


@dataclass(frozen=True)
class Sample:
    seconds: float  # wall time of the whole command
    peak_mib: float  # of its largest process
    output: str = ""  # its stdout


def run(command: Sequence[object], environment: dict[str, str] | None = None) -> Sample:
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                   env=os.environ | (environment or {}))
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode(errors="replace")
        if process.returncode != 0:
            err.seek(0)
            complaint = err.read().decode(errors="replace")
            raise Failed(f"exit {process.returncode}: {' '.join(words)}\n{text[-2000:]}{complaint[-2000:]}")
    return Sample(seconds, usage.ru_maxrss / 1024, text)


def read_through(files: Sequence[Path]) -> None:
    buffer = bytearray(16 * MIB)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


class PageCache:
    """What is done to the cache before a run. `how` says it."""

    def __init__(self) -> None:
        self.drops = os.access(DROP_CACHES, os.W_OK)
        self.how = ("echo 3 > /proc/sys/vm/drop_caches" if self.drops
                    else "posix_fadvise(POSIX_FADV_DONTNEED) on each input file")

    def cool(self, inputs: Sequence[Path], wake: Callable[[], None]) -> None:
        """Nothing of the inputs is cached; `wake` loads the programs again, which are not to be measured."""
        os.sync()  # only clean pages can be dropped
        if self.drops:
            DROP_CACHES.write_text("3\n")
        else:
            for path in inputs:
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        wake()

    def warm(self, inputs: Sequence[Path], wake: Callable[[], None]) -> None:
        os.sync()  # or the last run's output is written during this one
        read_through(inputs)
        wake()
