"""What is measured: groups of contenders that do the same work, the first of them the one to compare with."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from measure import MIB, Failed
from workplace import Family, Workplace

FULL_READ = ("--no-budget", "--top-p", "1")
STRATEGIES = ("ties", "avg", "dare")
COLD, WARM = "cold", "warm"
# mergekit's names and parameters of what we do by default. Its own dare_linear neither normalises nor is told to
# by default; ours divides by the sum of weights.
RECIPES = {
    "ties": {"merge_method": "ties", "parameters": {"density": 0.6, "weight": 1.0, "normalize": True, "lambda": 1.0}},
    "dare": {"merge_method": "dare_linear",
             "parameters": {"density": 0.5, "weight": 1.0, "normalize": True, "lambda": 1.0}},
    "avg": {"merge_method": "linear", "parameters": {"weight": 1.0, "normalize": True}},
}


@dataclass(frozen=True)
class Contender:
    name: str
    command: list[object]
    environment: dict[str, str] = field(default_factory=dict)
    aim: str = ""  # of the ratio to the first


@dataclass(frozen=True)
class Case:
    """Contenders that are run in turns, each run preceded by the same cache."""

    name: str
    cache: str
    contenders: list[Contender]


class Cases:
    """Builds the cases of a family. `options`: more options of every merge."""

    def __init__(self, place: Workplace, family: Family, limit_threads: int, options: list[str]):
        self.place, self.family, self.options = place, family, options
        self.limit_threads = limit_threads

    def merge(self, name: str, *extra: object, launcher: tuple = (), binary: Path | None = None,
              catalog: Path | None = None, aim: str = "") -> Contender:
        scratch = self.place.scratch
        models = ["--base", self.family.base, "--experts", *self.family.experts]
        return Contender(name, [*launcher, binary or self.place.mergepipe, "merge",
                                "--db", catalog or scratch / "db.sqlite", *models, "--out", scratch / "out",
                                "--runs-dir", scratch / "runs", *extra, *self.options], aim=aim)

    def limit(self, write: bool) -> Contender:
        command: list[object] = [self.place.io_limit, "--threads", self.limit_threads, "--read", *self.family.inputs]
        if write:
            command += ["--write", self.place.scratch / "limit", "--bytes", self.family.output_bytes]
        return Contender("limit", command)

    def strategy(self, name: str, cache: str) -> Case:
        aim = {"ties": "<= 1.2", "avg": "<= 1.1"}.get(name, "") if cache == COLD else ""
        mine = self.merge("mergepipe", "--strategy", name, *FULL_READ, aim=aim)
        return Case(name, cache, [self.limit(write=True), mine])

    def analyze(self, cache: str) -> Case:
        models = ["--base", self.family.base, "--experts", *self.family.experts]
        catalog = self.place.scratch / "db.sqlite"
        mine = Contender("mergepipe", [self.place.mergepipe, "analyze", *models, "--db", catalog],
                         aim="<= 1.1" if cache == COLD else "")
        return Case("analyze", cache, [self.limit(write=False), mine])

    def scaling(self, strategy: str) -> Case:
        options = ("--strategy", strategy, *FULL_READ, "--threads")
        one = self.merge("1 rank, 1 thread", *options, 1, launcher=("taskset", "-c", "0"))
        ranks = self.merge("2 ranks, 1 thread each", *options, 1,
                           launcher=("mpirun", "-n", "2", "--map-by", "core", "--bind-to", "core"), aim="<= 0.56")
        threads = self.merge("1 rank, 2 threads", *options, 2, launcher=("taskset", "-c", "0,1"), aim="<= 0.56")
        return Case(f"scaling of {strategy}", WARM, [one, ranks, threads])

    def budget(self, strategy: str, cache: str, catalog: Path) -> Case:
        def at(percent: int) -> tuple:
            return ("--io-budget-mb", f"{self.family.expert_bytes * percent / 100 / MIB:.6f}")

        aim = "<= 0.5" if cache == COLD else ""
        return Case(f"budget of {strategy}", cache, [
            self.merge("full read", "--strategy", strategy, *FULL_READ),
            self.merge("25 %, analyzed", "--strategy", strategy, *at(25), catalog=catalog),
            self.merge("10 %, probed", "--strategy", strategy, *at(10), aim=aim),
            self.merge("10 %, analyzed", "--strategy", strategy, *at(10), catalog=catalog, aim=aim)])

    def mergekit(self, strategy: str, tool: Path) -> Case:
        recipe = self.place.directory / f"mergekit-{strategy}.yaml"
        recipe.write_text(json.dumps(self.recipe(strategy), indent=1))  # JSON is YAML
        command: list[object] = [tool, recipe, self.place.scratch / "out", "--quiet", "--no-copy-tokenizer",
                                 "--no-write-model-card", "--random-seed", "0"]
        theirs = Contender("mergekit", command, {"HF_HUB_OFFLINE": "1"},
                           aim={"ties": ">= 40", "dare": ">= 20", "avg": ">= 12"}[strategy])
        return Case(f"{strategy} against mergekit", WARM,
                    [self.merge("mergepipe", "--strategy", strategy, *FULL_READ), theirs])

    def recipe(self, strategy: str) -> dict:
        made = dict(RECIPES[strategy])
        made["models"] = [{"model": str(expert)} for expert in self.family.experts]
        if strategy != "avg":
            made["base_model"] = str(self.family.base)
        return made | {"dtype": "float32", "out_dtype": "bfloat16"}

    def programs(self, strategy: str, cache: str, other: Path) -> Case:
        options = ("--strategy", strategy, *FULL_READ)
        return Case(f"{strategy}, two programs", cache,
                    [self.merge(f"{shlex.quote(other.name)} (other)", *options, binary=other),
                     self.merge("mergepipe", *options)])


# The names that --cases takes, in the order in which they are run.
NAMES = (*STRATEGIES, "analyze", "scaling", "budget", "mergekit", "programs", "holes")


def choose(cases: Cases, names: list[str], caches: list[str], other: Path | None) -> list[Case]:
    made: list[Case] = []
    both: dict[str, Callable[[str], Case]] = {name: lambda cache, n=name: cases.strategy(n, cache) for name in STRATEGIES}
    both["analyze"] = cases.analyze
    for name in names:
        if name in both:
            made += [both[name](cache) for cache in caches]
        elif name == "scaling" and WARM in caches:
            if len(os.sched_getaffinity(0)) < 2:
                raise Failed("scaling needs two cores; leave it out of --cases")
            made += [cases.scaling(strategy) for strategy in ("ties", "avg")]
        elif name == "budget":
            catalog = cases.place.analyzed(cases.family)
            made += [cases.budget(strategy, cache, catalog) for strategy in ("ties", "avg") for cache in caches]
        elif name == "mergekit" and WARM in caches:
            tool = cases.place.mergekit()
            made += [cases.mergekit(strategy, tool) for strategy in STRATEGIES]
        elif name == "programs" and other:
            made += [cases.programs(strategy, cache, other) for strategy in STRATEGIES for cache in caches]
    return made
