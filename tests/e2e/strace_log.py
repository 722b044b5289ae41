"""What a traced command really read: bytes of given files, from strace's own record of the system calls."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

CALLS = ("openat,open,close,read,pread64,readv,preadv,preadv2,mmap,lseek,copy_file_range,sendfile,splice,dup,dup2,dup3,"
         "ioctl,io_uring_setup,clone3,clone,execve,pwrite64,fsync,fdatasync")
# pread64(7</data/model.safetensors>, "..."..., 4096, 8192) = 4096; -y prints the path of each descriptor.
LINE = re.compile(r"(?P<call>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+|0x[0-9a-f]+)")
DESCRIPTOR = re.compile(r"(-?\d+)<((?:[^<>]|<[^<>]*>)*)>")
FREE_OF_DATA = {"close", "lseek", "dup", "dup2", "dup3", "fsync", "fdatasync"}


def command(prefix: Path) -> list[str]:
    """strace of a command and all its children and threads, a file each: lines are never torn."""
    return ["strace", "-f", "-ff", "-y", "-s", "0", "-o", str(prefix), "-e", f"trace={CALLS}", "-e", "signal=none"]


def why_not() -> str | None:
    """Why strace cannot be used here, or None."""
    try:
        done = subprocess.run(["strace", "-f", "true"], capture_output=True, timeout=20)
    except FileNotFoundError:
        return "strace is not installed"
    return None if done.returncode == 0 else f"strace cannot trace: {done.stderr.decode()[-200:]}"


@dataclass
class Reads:
    """Of one file: the pieces that were read, and every other way in which its bytes were taken."""

    pieces: list[tuple[int, int]] = field(default_factory=list)  # offset, size
    other: list[str] = field(default_factory=list)

    def bytes_from(self, offset: int) -> int:
        return sum(max(0, begin + size - max(begin, offset)) for begin, size in self.pieces)


def parse(prefix: Path) -> dict[str, Reads]:
    """All logs of a traced command, by the path that was read. io_uring, which strace cannot see
    through, is under the name 'io_uring'."""
    files: dict[str, Reads] = defaultdict(Reads)
    logs = sorted(prefix.parent.glob(prefix.name + ".*"))
    assert logs, f"strace left no logs at {prefix}.*"
    for log in logs:
        parse_log(log.read_text(errors="replace"), files)
    return files


def parse_log(text: str, files: dict[str, Reads]) -> None:
    """One thread's log. A plain read's offset is the sum of the thread's earlier ones on that descriptor."""
    positions: dict[tuple[str, str], int] = defaultdict(int)
    for line in text.splitlines():
        match = LINE.match(line)
        if not match:
            continue
        call, arguments, result = match["call"], match["arguments"], int(match["result"], 0)
        if call == "io_uring_setup":
            files["io_uring"].other.append(line)
        if result < 0 or call in ("openat", "open"):
            forget_position(line, positions)
            continue
        for number, path in DESCRIPTOR.findall(arguments):
            record(files[path], call, arguments, result, line, positions, (number, path))


def forget_position(line: str, positions: dict) -> None:
    """A newly opened descriptor starts at 0."""
    opened = re.search(r"= (\d+)<(.*)>$", line)
    if opened:
        positions[opened[1], opened[2]] = 0


def record(reads: Reads, call: str, arguments: str, result: int, line: str, positions: dict, key) -> None:
    if call in ("pread64", "preadv", "preadv2"):
        reads.pieces.append((offset_of(call, arguments), result))
    elif call in ("read", "readv"):
        reads.pieces.append((positions[key], result))
        positions[key] += result
    elif call == "lseek":
        positions[key] = result
    elif call not in FREE_OF_DATA:
        reads.other.append(line)


def offset_of(call: str, arguments: str) -> int:
    parts = arguments.rsplit(", ", 2)
    return int(parts[-2] if call == "preadv2" else parts[-1])
