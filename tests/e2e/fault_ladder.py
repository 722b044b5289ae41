"""Commands of the real program, disturbed by strace at one system call after the other.

strace counts a call by thread, and which thread makes how many differs from run to run: a rung that was not hit is an
undisturbed run, and is checked as one.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import checkpoint
from checkpoint import Family
from program import DONE, FULL_READ, IO_ERROR, NO_SPACE, USAGE, Outcome, Program

KILLED = (137, -9)
# Calls that belong together: the first name is that of the group.
GROUPS = {
    "openat": ("openat",),
    "pwrite64": ("pwrite64",),
    "pread64": ("pread64", "preadv2"),
    "fsync": ("fsync", "fdatasync"),
    "rename": ("rename", "renameat", "renameat2", "link", "linkat"),
    "allocate": ("fallocate", "ftruncate"),
    "mkdir": ("mkdir", "mkdirat"),
    "unlink": ("unlink", "unlinkat", "rmdir"),
    "stat": ("newfstatat", "statx", "fstat", "getdents64"),
    "close": ("close",),
}
CODES = {"EIO": (IO_ERROR,), "ENOSPC": (NO_SPACE,), "EDQUOT": (NO_SPACE,), "EINTR": (DONE, IO_ERROR)}
ERRORS = tuple(CODES)
# The kernel never leaves these with EINTR, and a group without them is to be passed without a word.
RESTARTED = ("openat", "pwrite64", "pread64", "allocate", "close")
PROBLEM = "mergepipe: error: "


@dataclass
class Command:
    """A command, what it starts from, and what it makes, for two runs of it to be compared."""

    name: str
    arguments: list
    made: Callable[[Program], object]
    prepare: Callable[[Program], None] = lambda program: None
    before: object = None  # what `made` gives before the command, if that is not "nothing"
    ranks: int | None = None
    inject: tuple[str, ...] = ()  # on every run of the command under strace
    whole: Callable[[Program, object], bool] = lambda program, made: False  # what else may be found
    expected: object = field(default=None, repr=False)


def start_over(program: Program, command: Command) -> None:
    """The working directory as the command finds it the first time."""
    for path in [*program.root.glob("db.sqlite*"), program.outputs, program.root / "runs"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    program.outputs.mkdir()
    command.prepare(program)


def strace(log: Path, group: str, inject: str | None) -> list[str]:
    names = ",".join(GROUPS[group])
    arguments = ["strace", "-f", "-qq", "-y", "-s", "0", "-o", str(log), "-e", f"trace={names}", "-e", "signal=none"]
    if inject is None or "signal=" not in inject:
        arguments.append("--seccomp-bpf")  # several times as fast; it loses the signals
    return arguments + (["-e", f"inject={names}:{inject}"] if inject else [])


def run(program: Program, command: Command, group: str, inject: str | None = None) -> tuple[Outcome, list[str]]:
    """The command from its start, and strace's lines."""
    start_over(program, command)
    log = program.root / "strace.log"
    prefix = strace(log, group, inject)
    for expression in command.inject:
        prefix += ["-e", f"inject={expression}"]
    outcome = program.run(*command.arguments, ranks=command.ranks, prefix=prefix, timeout=60)
    return outcome, log.read_text(errors="replace").splitlines()


def rungs(program: Program, lines: list[str], limit: int) -> list[int]:
    """At which calls of a thread there is something of ours: `limit` of them, spread, and with the last ones."""
    counts: dict[tuple[str, str], int] = {}
    ours = set()
    for line in lines:
        match = re.match(r"(\d+) +(\w+)\(", line)
        if not match:
            continue
        counts[match.groups()] = counts.get(match.groups(), 0) + 1
        if str(program.root) in line or "/family" in line:
            ours.add(counts[match.groups()])
    numbers = sorted(ours)
    if len(numbers) <= limit:
        return numbers
    last = min(3, limit // 2)
    step = (len(numbers) - last) / (limit - last)
    return sorted({numbers[int(i * step)] for i in range(limit - last)} | set(numbers[-last:]))


def database_rows(path: Path, *queries: str) -> list:
    """As the program itself would see it: a transaction that was cut short is rolled back."""
    if not path.exists():
        return []
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return [connection.execute(query).fetchall() for query in queries]
    finally:
        connection.close()


def injected(lines: list[str]) -> list[str]:
    return [line for line in lines if "(INJECTED)" in line]


def paths_of(line: str) -> list[str]:
    return [path for path in re.findall(r'[<"]([^<>"]*)[>"]', line) if path.startswith("/") or "db.sqlite" in path]


def check_told(program: Program, outcome: Outcome, hits: list[str], error: str) -> None:
    """One line, with the exit code of its kind, that names the file."""
    if any(not any("/family" in path or str(program.root) in path for path in paths_of(hit)) for hit in hits):
        return  # a library, a pipe of the launcher: not ours to tell
    # SQLite tells that a sync failed, but not why.
    codes = CODES[error] + ((IO_ERROR,) if any("db.sqlite" in hit for hit in hits) else ())
    assert outcome.code in codes, f"{error} at {hits}{outcome}"
    assert len(outcome.problems()) == 1, f"{error} at {hits}{outcome}"
    strange = [line for line in outcome.stderr.splitlines() if not line.startswith("mergepipe: ")]
    assert not strange or outcome.command.count("mpirun"), f"{error} at {hits}{outcome}"
    line = outcome.problems()[0]
    assert "; " in line, f"the line does not say what to do{outcome}"
    names = {Path(path).name for hit in hits for path in paths_of(hit)} | {program.catalog.name}
    assert any(name in line for name in names), f"{hits}: no file is named{outcome}"


def check_rung(program: Program, command: Command, group: str, outcome: Outcome, lines: list[str],
               error: str | None) -> bool:
    """What must hold after a disturbed command, and after the same command again. Whether it was disturbed."""
    hits = injected(lines)
    if error is None:
        disturbed = outcome.code in KILLED
        assert disturbed or outcome.code == DONE, outcome
    else:
        disturbed = bool(hits)
        if outcome.code != DONE:
            check_told(program, outcome, hits, error)
        else:
            assert "[OK]" in outcome.stdout, outcome
        if error == "EINTR" and group in RESTARTED:
            assert outcome.code == DONE, f"a signal's interruption is no failure: {hits}{outcome}"
    made = command.made(program)
    known = made in (command.before, command.expected) or command.whole(program, made)
    assert known, f"neither old nor new: {hits}{outcome}"
    if outcome.code == DONE:
        assert made == command.expected, outcome
    database_rows(program.catalog)
    again = program.run(*command.arguments, ranks=command.ranks)
    if again.code == USAGE and made == command.expected and "exists already" in again.stderr:
        # It was told too late: the output is in place, and the catalog can be told of it.
        program.run("recover", "--yes").expect(DONE)
        program.assert_recorded(program.root / command.arguments[command.arguments.index("--out") + 1])
        return disturbed
    again.expect(DONE)
    assert command.made(program) == command.expected, f"after {hits}{outcome}{again}"
    program.assert_catalog_intact()
    left = [path.name for path in program.outputs.iterdir() if path.name.startswith(".")]
    assert not left, f"left beside the output: {left}{outcome}{again}"
    return disturbed


def climb(program: Program, command: Command, group: str, limit: int, errors=ERRORS) -> int:
    """Disturbs the calls of a group, each rung with another of `errors`; None kills. How many were hit."""
    outcome, lines = run(program, command, group)
    outcome.expect(DONE)
    if command.expected is None:
        command.expected = command.made(program)
        assert command.expected != command.before
    hits = 0
    for i, number in enumerate(rungs(program, lines, limit)):
        error = errors[i % len(errors)]
        what = "signal=SIGKILL" if error is None else f"error={error}"
        outcome, lines = run(program, command, group, f"{what}:when={number}")
        hits += check_rung(program, command, group, outcome, lines, error)
    return hits


# ---------------------------------------------------------------------------------------------- the commands

def output(program: Program) -> dict[str, bytes] | None:
    """The published bytes, without the record, which names its run."""
    path = program.outputs / "merged"
    if not path.exists():
        return None
    assert (path / "manifest.json").exists(), f"{path} is not whole"
    return {name: data for name, data in checkpoint.all_files(path).items() if name != "manifest.json"}


def merge_command(family: Family, *extra, **how) -> Command:
    arguments = ["merge", "--base", family.base.path, "--experts", *family.paths(), "--out", "out/merged", *FULL_READ,
                 "--threads", "2", *extra]
    return Command("merge", arguments, output, **how)


def overwrite_command(program: Program, family: Family) -> Command:
    """A merge that takes the place of another."""
    start_over(program, command := merge_command(family, "--overwrite"))
    program.run(*command.arguments, "--weights", "1", "2").expect(DONE)
    old = program.root / "old"
    shutil.copytree(program.outputs / "merged", old)
    command.before = output(program)
    command.prepare = lambda p: shutil.copytree(old, p.outputs / "merged")
    return command


def materialize_command(program: Program, family: Family) -> Command:
    start_over(program, sparse := merge_command(family, "--output", "sparse"))
    program.run(*sparse.arguments).expect(DONE)
    kept = program.root / "sparse"
    shutil.move(program.outputs / "merged", kept)
    return Command("materialize", ["materialize", kept, "--base", family.base.path, "--out", "out/merged",
                                   "--threads", "2"], output)


def known(program: Program) -> list | None:
    """Models and statistics of the catalog; nothing as long as the statistics are not complete."""
    rows = database_rows(
        program.catalog, "SELECT id, path, fingerprint FROM models ORDER BY id",
        "SELECT b.id, e.id, t.tensor, t.chunk, t.data FROM statistics t JOIN statistics_sets s ON s.key = t.set_key "
        "JOIN models b ON b.key = s.base LEFT JOIN models e ON e.key = s.expert ORDER BY 1, 2, 3, 4")
    return rows if rows and rows[1] else None


def analyze_command(family: Family) -> Command:
    return Command("analyze", ["analyze", "--base", family.base.path, "--experts", *family.paths(), "--threads", "2"],
                   known)


def models(program: Program) -> list | None:
    rows = database_rows(program.catalog, "SELECT id, path, fingerprint FROM models")
    return rows[0] if rows and rows[0] else None


def register_command(family: Family) -> Command:
    return Command("register", ["register", family.experts[0].path, "--id", "mine"], models)


def runs(program: Program) -> list | None:
    rows = database_rows(program.catalog, "SELECT run_id, manifest_hash, output_path FROM runs")
    return rows[0] if rows and rows[0] else None


def recover_command(program: Program, family: Family, damaged: bool) -> Command:
    """Of a catalog that is gone, or one of which a part is overwritten."""
    start_over(program, merge := merge_command(family))
    program.run(*merge.arguments).expect(DONE)
    run_id, = (path.name for path in (program.root / "runs").iterdir())
    catalog = bytearray(program.catalog.read_bytes())
    for match in re.finditer(run_id.encode(), bytes(catalog)):
        catalog[match.end() - 1] ^= 1
    kept = program.root / "kept"
    for name in ("out", "runs"):
        shutil.copytree(program.root / name, kept / name)

    def prepare(p: Program) -> None:
        for name in ("out", "runs"):
            shutil.copytree(kept / name, p.root / name, dirs_exist_ok=True)
        if damaged:
            p.catalog.write_bytes(catalog)

    command = Command("recover", ["recover", "--yes"], runs, prepare)
    start_over(program, command)
    command.before = runs(program)
    return command
