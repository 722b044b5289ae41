"""Runs the program as a user does, and reads what a merge leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import checkpoint
import oracle

DONE, USAGE, BAD_INPUT, NO_SPACE, IO_ERROR, UNVERIFIED = 0, 2, 3, 4, 5, 6
FULL_READ = ("--no-budget", "--top-p", "1")
MIB = 1 << 20

MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_MCA_pml": "ob1", "OMPI_MCA_plm": "isolated",
}
OK_LINE = re.compile(
    r"\[OK\] merged base=(?P<base>\S+) experts=\[(?P<experts>'[^']*'(?:, '[^']*')*)\] -> (?P<out>.+) "
    r"\| run=(?P<run>.+) \| plan=(?P<plan>\d+\.\d\d)s exec=(?P<exec>\d+\.\d)s")


def megabytes(count: int) -> str:
    """Bytes as the exact decimal number of MiB that --io-budget-mb takes."""
    return format(Decimal(count) / Decimal(MIB), "f")


@dataclass
class Outcome:
    command: list[str]
    code: int
    stdout: str
    stderr: str
    seconds: float

    def __str__(self) -> str:
        return (f"\n$ {' '.join(self.command)}\nexit {self.code} after {self.seconds:.1f} s\n"
                f"--- stdout\n{self.stdout}--- stderr\n{self.stderr}---")

    def problems(self) -> list[str]:
        """The lines about errors, without the program's name."""
        mark = "mergepipe: error: "
        return [line.removeprefix(mark) for line in self.stderr.splitlines() if line.startswith(mark)]

    def expect(self, code: int) -> Outcome:
        assert self.code == code, f"expected exit {code}{self}"
        return self


@dataclass
class Merge:
    """A merge that ended well: what it printed and where it put things."""

    outcome: Outcome
    out: Path
    run: Path
    ok: dict[str, str]

    @property
    def plan(self) -> dict:
        return json.loads((self.run / "plan.json").read_text())

    @property
    def manifest(self) -> dict:
        return json.loads((self.run / "manifest.json").read_text())

    def tensors(self) -> dict:
        return checkpoint.read_model(self.out)

    def hashes(self) -> dict[str, str]:
        """Every hash of the output that the manifest states."""
        manifest = self.manifest
        return {f"{kind}:{entry['name']}": entry["hash"]
                for kind in ("tensors", "files", "side_files") for entry in manifest[kind]}

    def output_files(self) -> dict[str, bytes]:
        """The published bytes; manifest.json is left out, as it names the run."""
        return {name: data for name, data in checkpoint.all_files(self.out).items() if name != "manifest.json"}

    def expert_bytes_read(self) -> int:
        io = self.manifest["io"]
        return io["probe_bytes_read"] + io["expert_bytes_read"]


class Program:
    """The program in a working directory of its own: catalog db.sqlite, run folders in runs/, a private
    TMPDIR. Outputs go to out/, which holds nothing else, so that leftovers show."""

    def __init__(self, binary: str, root: Path, tmpdir: Path):
        self.binary = binary
        self.root = root
        self.outputs = root / "out"
        self.catalog = root / "db.sqlite"
        self.outputs.mkdir(parents=True)
        self.environment = MPI_ENVIRONMENT | dict(os.environ) | {
            "TMPDIR": str(tmpdir), "MERGEPIPE_DB": str(self.catalog), "LC_ALL": "C.UTF-8"}

    def run(self, *arguments, ranks: int | None = None, timeout: int = 120, prefix=(), env=None) -> Outcome:
        """One command. `ranks` None runs a plain process; a number, that many ranks by mpirun."""
        launcher = [] if ranks is None else ["mpirun", "-n", str(ranks), "--oversubscribe"]
        command = ["timeout", "-k", "5", str(timeout), *prefix, *launcher, self.binary, *map(str, arguments)]
        start = time.monotonic()
        done = subprocess.run(command, cwd=self.root, env=self.environment | (env or {}), capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=timeout + 15)
        return Outcome(command, done.returncode, done.stdout.decode(errors="backslashreplace"),
                       done.stderr.decode(errors="backslashreplace"), time.monotonic() - start)

    def try_merge(self, family: checkpoint.Family, *extra, options=oracle.Options(), out="merged", **how) -> Outcome:
        return self.run("merge", "--base", family.base.path, "--experts", *family.paths(),
                        "--out", self.outputs / out, *options.arguments(), *extra, **how)

    def merge(self, family: checkpoint.Family, *extra, options=oracle.Options(), out="merged", **how) -> Merge:
        return self.merged(self.try_merge(family, *extra, options=options, out=out, **how))

    def merged(self, outcome: Outcome) -> Merge:
        """What an outcome says it made; fails unless it succeeded and printed the [OK] line first."""
        outcome.expect(DONE)
        first = outcome.stdout.partition("\n")[0]
        match = OK_LINE.fullmatch(first)
        assert match, f"the first line of stdout is not the [OK] line: {first!r}{outcome}"
        ok = match.groupdict()
        return Merge(outcome, self.root / ok["out"], self.root / ok["run"], ok)

    def plan(self, family: checkpoint.Family, *extra, options=oracle.Options(), **how) -> dict:
        outcome = self.run("plan", "--json", "--base", family.base.path, "--experts", *family.paths(),
                           *options.arguments(), *extra, **how).expect(DONE)
        return json.loads(outcome.stdout)

    def try_analyze(self, family: checkpoint.Family, *extra, **how) -> Outcome:
        return self.run("analyze", "--base", family.base.path, "--experts", *family.paths(), *extra, **how)

    def analyze(self, family: checkpoint.Family, *extra, **how) -> dict:
        """What `analyze --json` says it did."""
        return json.loads(self.try_analyze(family, "--json", *extra, **how).expect(DONE).stdout)

    def assert_catalog_intact(self) -> None:
        """Absent, or a database that SQLite finds whole, with no transaction left open."""
        leftovers = [p.name for p in self.catalog.parent.iterdir() if p.name.startswith(self.catalog.name + "-")]
        assert not leftovers, f"left beside the catalog: {leftovers}"
        if self.catalog.exists():
            assert check_database(self.catalog) == "ok"

    def assert_recorded(self, out: Path) -> None:
        """The catalog knows the run of this output."""
        run_id = json.loads((out / "manifest.json").read_text())["run_id"]
        connection = sqlite3.connect(f"file:{self.catalog}?mode=ro", uri=True)
        try:
            rows = connection.execute("SELECT output_path FROM runs WHERE run_id = ?", (run_id,)).fetchall()
        finally:
            connection.close()
        assert rows == [(str(out),)], f"{run_id}: {rows}"

    def assert_nothing_published(self) -> None:
        left = sorted(str(p.relative_to(self.outputs)) for p in self.outputs.rglob("*"))
        assert not left, f"a failed command left in the output's parent: {left}"


def check_database(path: Path) -> str:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        connection.close()


def check_database_as_left(path: Path) -> str:
    """The same of a copy: to look at a database settles what a killed transaction left, and the next command is to find that."""
    with tempfile.TemporaryDirectory() as folder:
        for part in path.parent.glob(path.name + "*"):
            shutil.copy(part, folder)
        connection = sqlite3.connect(Path(folder) / path.name)
        try:
            return connection.execute("PRAGMA integrity_check").fetchone()[0]
        finally:
            connection.close()


def canonical(value) -> str:
    """How the records are written: sorted keys, one space of indent, a newline at the end."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def compact(value) -> str:
    """What hashes are taken of: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
