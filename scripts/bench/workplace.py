"""Where a benchmark runs: programs, the family of models, and a directory for what runs leave."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import measure

ROOT = Path(__file__).resolve().parents[2]
HOLES = ROOT / "tests" / "e2e" / "hole_family.py"


def log(text: str) -> None:
    print(f"== {text}", file=sys.stderr, flush=True)


def program(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable) or ROOT / default).resolve()
    if not os.access(path, os.X_OK):
        raise measure.Failed(f"there is no program {path}; build it first, or set {variable}")
    return path


@dataclass(frozen=True)
class Family:
    base: Path
    experts: list[Path]

    @property
    def inputs(self) -> list[Path]:
        return [file for model in (self.base, *self.experts) for file in sorted(model.glob("*.safetensors"))]

    @property
    def output_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.base.glob("*.safetensors"))

    @property
    def expert_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.inputs) - self.output_bytes


class Workplace:
    def __init__(self, directory: Path):
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.mergepipe = program("MERGEPIPE_BIN", "build/release/src/mergepipe")
        self.io_limit = program("MERGEPIPE_IO_LIMIT", "build/release/tests/bench/io_limit")
        self.scratch = self.directory / "scratch"
        self.clear()

    def clear(self) -> None:
        """Removes what the last run has left."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()

    def close(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def wake(self) -> None:
        """Loads the programs and their libraries."""
        for path in (self.mergepipe, self.io_limit):
            subprocess.run([path, "--help"], stdout=subprocess.DEVNULL, check=True)

    def family(self, shape: str, size: str, experts: int, given: Path | None) -> Family:
        directory = given or self.directory / f"{shape}-{size}-{experts}"
        if not (directory / f"expert_{experts}").is_dir():
            log(f"making {shape}/{size} with {experts} experts in {directory}")
            measure.run([self.mergepipe, "demo", directory, "--shape", shape, "--size", size, "--experts", experts])
        return Family(directory / "base", [directory / f"expert_{k}" for k in range(1, experts + 1)])

    def hole_family(self, size: str, experts: int, shards: int) -> Family:
        directory = self.directory / f"holes-{size}-{experts}"
        if not (directory / f"expert_{experts}").is_dir():
            log(f"making {size} with {experts} experts of holes in {directory}")
            shutil.rmtree(directory, ignore_errors=True)  # of a run that was stopped
            measure.run([sys.executable, HOLES, directory, "--size", size, "--experts", experts, "--shards", shards])
        return Family(directory / "base", [directory / f"expert_{k}" for k in range(1, experts + 1)])

    def analyzed(self, family: Family) -> Path:
        """A catalog that knows the family."""
        catalog = self.directory / "analyzed.sqlite"
        models = ["--base", family.base, "--experts", *family.experts]
        log("analyzing the experts, unless the catalog knows them")
        measure.run([self.mergepipe, "analyze", *models, "--db", catalog])
        return catalog

    def mergekit(self) -> Path:
        """mergekit-yaml in an environment of its own, made if absent."""
        venv = Path(os.environ.get("MERGEKIT_VENV") or self.directory / "mergekit")
        tool = venv / "bin" / "mergekit-yaml"
        if not tool.exists():
            log(f"installing mergekit in {venv}")
            measure.run([sys.executable, "-m", "venv", "--clear", venv])
            measure.run([venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                         "--no-input", "mergekit"])
        return tool
