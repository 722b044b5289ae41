"""Kills merges at random moments and runs them again until they are done; scripts/kill_loop.sh calls it.

A round is one merge: of a strategy, on a number of ranks, with or without an old output to be replaced. Each of its
attempts is SIGKILLed at a moment drawn from one of its phases - one rank, or mpirun itself - or left alone. After each
attempt all that a kill must never break is checked, after the last one that the output is that of a merge nobody
disturbed. A round's draws follow from its seed alone, which is printed when something is wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import checkpoint
from job import Job, kill, merge_arguments, staging_of, until
from oracle import Options
from program import DONE, FULL_READ, USAGE, Merge, Outcome, Program, check_database, check_database_as_left

SHAPES = {f"layers.{i}.weight": (1024, 1024) for i in range(40)}
RANKS = (None, 1, 2, 4)  # None is a plain process
STRATEGIES = ("ties", "avg")
# How often a kill is aimed at each: until something changes beside the target; until the manifest is written; until the
# target is the new one; until the command ends.
PHASES = {"planning": 0.12, "merging": 0.6, "publishing": 0.2, "recording": 0.08}
MOST_KILLS = 5  # of one round
ENDS_WITHIN = 10  # seconds, from the kill to the end of the last process


class Broken(AssertionError):
    """Something does not hold that must."""


def require(holds: bool, what: str, outcome: Outcome | None = None) -> None:
    if not holds:
        raise Broken(f"{what}{outcome or ''}")


@dataclass(frozen=True)
class Case:
    ranks: int | None
    strategy: str
    overwrite: bool

    @property
    def key(self) -> tuple:
        return self.ranks, self.strategy

    def __str__(self) -> str:
        how = "a process" if self.ranks is None else f"{self.ranks} ranks"
        return f"{self.strategy}, {how}{', --overwrite' * self.overwrite}"


@dataclass(frozen=True)
class Aim:
    phase: str
    share: float  # of how long the phase takes when nobody disturbs it
    rank: int | None  # None is mpirun

    def __str__(self) -> str:
        return f"{'mpirun' if self.rank is None else f'rank {self.rank}'} at {self.share:.0%} of {self.phase}"


@dataclass
class Attempt:
    outcome: Outcome
    killed: bool
    phase: str = ""  # in which it was when it was killed
    fell_at: float = 0  # seconds after its start


class Watch:
    """What a merge has reached, by what changes beside its target."""

    def __init__(self, program: Program):
        self.program = program
        self.target = program.outputs / "merged"
        self.before = self.look()

    def look(self) -> dict[str, tuple]:
        """Everything below the outputs but the lock, which is taken before there is anything to lose."""
        found = {}
        folders = [self.program.outputs]
        while folders:
            try:
                for entry in os.scandir(folders.pop()):
                    info = entry.stat(follow_symlinks=False)
                    found[entry.path] = info.st_ino, info.st_mtime_ns, info.st_size
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
            except FileNotFoundError:
                continue  # it was renamed or removed meanwhile
        return {path: seen for path, seen in found.items() if not path.endswith(".lock")}

    def phase(self) -> str:
        now = self.look()
        changed = {path for path in now if now[path] != self.before.get(path)}
        if str(self.target) in changed and now[str(self.target)][0] != self.before.get(str(self.target), [None])[0]:
            return "recording"
        if any(path.endswith("/manifest.json") for path in changed):
            return "publishing"
        return "merging" if changed else "planning"


@dataclass
class Tally:
    kills: Counter = field(default_factory=Counter)  # by phase
    victims: Counter = field(default_factory=Counter)
    cases: Counter = field(default_factory=Counter)
    merging_at: list[float] = field(default_factory=list)  # where in the merging, as a share of its usual length
    missed: int = 0  # attempts that were done, or had nothing to kill any more, before the moment came
    rounds: int = 0
    published: int = 0  # rounds whose output was in place when they were killed
    gone_after: list[float] = field(default_factory=list)
    taken_over: list[float] = field(default_factory=list)  # share of the expert bytes, in rounds that were killed merging
    reread: list[float] = field(default_factory=list)

    def lines(self) -> list[str]:
        total = self.kills.total()
        lines = [f"{total} kills in {self.rounds} rounds; {self.missed} attempts were done before their moment came"]
        lines.append("  in " + ", ".join(f"{phase}: {self.kills[phase]}" for phase in PHASES) +
                     f"; the output was in place already: {self.published}")
        bins = Counter(min(9, int(share * 10)) for share in self.merging_at)
        lines.append("  merging, by tenths of its usual length: " + " ".join(str(bins[i]) for i in range(10)))
        lines.append("  killed: " + ", ".join(f"{who}: {count}" for who, count in sorted(self.victims.items())))
        lines.append("  of " + "; ".join(f"{case}: {count}" for case, count in sorted(self.cases.items())))
        if self.gone_after:
            lines.append(f"  all processes gone after {statistics.median(self.gone_after):.2f} s"
                         f" (median; at most {max(self.gone_after):.2f} s)")
        if self.taken_over:
            lines.append(f"  after a kill while merging: {statistics.mean(self.taken_over):.0%} of the expert bytes taken"
                         f" over, {statistics.mean(self.reread):.0%} read again (means; at most {max(self.reread):.0%})")
        return lines


class Lengths:
    """How long the phases of a case take when nobody disturbs it, from one such run."""

    def __init__(self, loop: KillLoop, case: Case):
        program = loop.program
        loop.clear(program, case)
        watch, job = Watch(program), loop.start(case)
        begin = {"planning": 0.0}
        while job.running():
            begin.setdefault(watch.phase(), time.monotonic() - job.start)
            time.sleep(0.0003)
        outcome = job.wait().expect(DONE)
        self.seconds, end = {}, outcome.seconds
        for phase in reversed(PHASES):  # a phase that was too short to be seen has no length
            self.seconds[phase] = end - begin.get(phase, end)
            end = begin.get(phase, end)


class KillLoop:
    def __init__(self, binary: str, root: Path, ranks):
        self.root, self.ranks = root, ranks
        self.tally = Tally()
        self.family = checkpoint.make_family(root / "family", "BF16", experts=2, shards=2, shapes=SHAPES)
        (root / "t").mkdir()
        self.program = Program(binary, root / "loop", root / "t")
        # Segments of killed ranks go with the directory; and nobody has to wait a second for each kill.
        self.program.environment |= {"OMPI_MCA_btl_vader_backing_directory": str(root / "t"),
                                     "OMPI_MCA_odls_base_sigkill_timeout": "0"}
        self.references: dict[str, dict] = {}
        self.reference_io: dict[str, dict] = {}
        for strategy in STRATEGIES:
            apart = Program(binary, root / f"alone-{strategy}", root / "t")
            merge = apart.merge(self.family, *FULL_READ, "--threads", "1", options=Options(strategy))
            self.references[strategy] = merge.output_files()
            self.reference_io[strategy] = merge.manifest["io"]
        # What --overwrite replaces: an output of this program, of another merge.
        other = Program(binary, root / "old", root / "t")
        self.old = other.merge(self.family, *FULL_READ, options=Options("avg", lam=0.5)).out
        self.old_files = checkpoint.all_files(self.old)
        self.lengths: dict[tuple, Lengths] = {}  # by ranks and strategy

    # ------------------------------------------------------------------------------------------ one attempt

    def start(self, case: Case) -> Job:
        overwrite = ["--overwrite"] * case.overwrite
        return Job(self.program, *merge_arguments(self.program, self.family, *FULL_READ, "--threads", "1", *overwrite,
                                                  options=Options(case.strategy)), ranks=case.ranks)

    def clear(self, program: Program, case: Case) -> None:
        shutil.rmtree(program.outputs)
        program.outputs.mkdir()
        if case.overwrite:
            shutil.copytree(self.old, program.outputs / "merged")

    def attempt(self, case: Case, aim: Aim | None) -> Attempt:
        watch, job = Watch(self.program), self.start(case)
        killed, fell_at = False, 0.0
        if aim:
            killed, fell_at = self.strike(job, watch, aim, self.lengths[case.key].seconds[aim.phase])
        outcome = job.wait()
        ended = time.monotonic()
        job.wait_for_all(ENDS_WITHIN)
        if killed:
            # Only when all is quiet is it certain what was reached.
            self.tally.gone_after.append(max(time.monotonic(), ended) - job.start - fell_at)
            require(self.tally.gone_after[-1] < ENDS_WITHIN, f"its processes were left for {self.tally.gone_after[-1]:.1f} s",
                    outcome)
        # It can be done in the moment in which it is killed.
        killed = killed and outcome.code != DONE
        return Attempt(outcome, killed, watch.phase() if killed else "", fell_at)

    def strike(self, job: Job, watch: Watch, aim: Aim, length: float) -> tuple[bool, float]:
        """Waits for the phase, then for the drawn share of its length, then kills."""
        order = list(PHASES)
        victim = None
        while job.running() and (victim is None or order.index(watch.phase()) < order.index(aim.phase)):
            victim = victim or (job.launcher() if aim.rank is None else job.ranks().get(aim.rank))
            time.sleep(0.0002)
        time.sleep(aim.share * length)
        if not job.running():
            return False, 0.0
        fell_at = time.monotonic() - job.start
        return victim is not None and kill(victim), fell_at

    # -------------------------------------------------------------------------------------- what must hold

    def target(self) -> dict[str, bytes] | None:
        path = self.program.outputs / "merged"
        return checkpoint.all_files(path) if path.exists() else None

    def is_new(self, files: dict[str, bytes] | None, case: Case) -> bool:
        """The whole new output; its manifest names the run and is looked at by `verify`."""
        if files is None or "manifest.json" not in files or files == self.old_files:
            return False
        return {name: data for name, data in files.items() if name != "manifest.json"} == self.references[case.strategy]

    def check_target(self, case: Case, attempt: Attempt) -> bool:
        """Absent, or the whole old one, or the whole new one; whether it is the new one."""
        files = self.target()
        if self.is_new(files, case):
            return True
        require("[OK]" not in attempt.outcome.stdout, "it says [OK], but the output is not in place", attempt.outcome)
        if case.overwrite:
            require(files is not None, "the old output is gone, and no new one is in place", attempt.outcome)
            require(files == self.old_files, "the target is neither the whole old output nor the whole new one",
                    attempt.outcome)
        else:
            require(files is None, "there is a part of an output", attempt.outcome)
        return False

    def check_catalog(self, outcome: Outcome) -> None:
        if self.program.catalog.exists():
            said = check_database_as_left(self.program.catalog)
            require(said == "ok", f"the catalog is damaged: {said}", outcome)

    def check_done(self, case: Case, outcome: Outcome, killed_in: list[str]) -> None:
        merge = self.program.merged(outcome)
        require(self.is_new(self.target(), case), "the output is not that of an undisturbed merge", outcome)
        left = sorted(path.name for path in self.program.outputs.iterdir() if path.name != "merged")
        require(not left, f"left beside the output: {left}", outcome)
        require(check_database(self.program.catalog) == "ok", "the catalog is damaged", outcome)
        self.check_reads(case, merge, killed_in)

    def check_reads(self, case: Case, merge: Merge, killed_in: list[str]) -> None:
        """Over all attempts what the plan says and no more, but for what was in flight at a kill."""
        io, reference = merge.manifest["io"], self.reference_io[case.strategy]
        require(io["expert_bytes_read"] == reference["expert_bytes_read"],
                f"{io['expert_bytes_read']} expert bytes were read, {reference['expert_bytes_read']} by an undisturbed merge",
                merge.outcome)
        if "reread_bytes" not in io:
            return
        resumed, again = io["resumed_expert_bytes"], io["reread_bytes"]
        # Integer tensors are read too, to be compared with the base's.
        merging, all_of_it = io["expert_bytes_read"], io["expert_bytes_read"] + self.family.compare_bytes()
        counts = f"of {all_of_it} expert bytes {resumed} were taken over and {again} read again; killed in {killed_in}"
        require(0 <= resumed <= all_of_it and again >= 0, counts, merge.outcome)
        began = [phase for phase in killed_in if phase != "planning"]
        if not began:
            require(resumed == 0 and again == 0, f"nothing was read before, but {counts}", merge.outcome)
        # An attempt begins to read what is not finished, and no more; what it finishes is not read again.
        require(again <= len(began) * all_of_it, counts, merge.outcome)
        if len(began) == 1:
            require(resumed + again <= all_of_it, f"more was read again than was in flight: {counts}", merge.outcome)
        if "publishing" in began[-1:] and (len(began) == 1 or not case.overwrite):
            require(resumed >= merging, f"all was merged when it was last killed, but {counts}", merge.outcome)
            require(again == 0 or len(began) > 1, f"all was merged when it was killed, but {counts}", merge.outcome)
        if "merging" in began:
            self.tally.taken_over.append(resumed / all_of_it)
            self.tally.reread.append(again / all_of_it)

    # --------------------------------------------------------------------------------------------- a round

    def draw_aim(self, rng: random.Random, case: Case) -> Aim | None:
        if rng.random() < 0.2:
            return None
        phase, = rng.choices(list(PHASES), PHASES.values())
        by_launcher = case.ranks is not None and rng.random() < 0.1
        # Publishing is short: half of the kills that are meant for it come at once.
        share = 0.0 if phase == "publishing" and rng.random() < 0.5 else rng.random()
        return Aim(phase, share, None if by_launcher else rng.randrange(case.ranks or 1))

    def round(self, seed: int) -> None:
        rng = random.Random(seed)
        case = Case(rng.choice(self.ranks), rng.choice(STRATEGIES), rng.random() < 0.5)
        if case.key not in self.lengths:
            self.lengths[case.key] = Lengths(self, case)
        # A catalog that lives through many kills, and now and then a new one, to which more is written.
        if rng.random() < 0.3:
            for path in self.program.root.glob(self.program.catalog.name + "*"):
                path.unlink()
        self.clear(self.program, case)
        self.tally.rounds += 1
        killed_in: list[str] = []
        said = [f"seed {seed}: {case}"]
        try:
            while self.goes_on(rng, case, killed_in, said):
                pass
        except (AssertionError, sqlite3.Error) as error:
            raise Broken("\n".join((*said, str(error)))) from error

    def goes_on(self, rng: random.Random, case: Case, killed_in: list[str], said: list[str]) -> bool:
        aim = self.draw_aim(rng, case) if len(killed_in) < MOST_KILLS else None
        said.append(f"  attempt {len(said)}: {'not killed' if aim is None else aim}")
        attempt = self.attempt(case, aim)
        new = self.check_target(case, attempt)
        self.check_catalog(attempt.outcome)
        if not attempt.killed:
            self.tally.missed += aim is not None
            self.check_done(case, attempt.outcome.expect(DONE), killed_in)
            return False
        said[-1] += f", in fact in {attempt.phase}"
        self.count(case, aim, attempt)
        killed_in.append(attempt.phase)
        if not new:
            return True
        self.tally.published += 1
        if case.overwrite:
            return True  # the same command replaces it once more
        again = self.attempt(case, None)
        require(again.outcome.code in (DONE, USAGE), "the output was in place, but the same command fails", again.outcome)
        require(self.is_new(self.target(), case), "a whole output was damaged by the same command", again.outcome)
        self.check_catalog(again.outcome)
        return False

    def count(self, case: Case, aim: Aim, attempt: Attempt) -> None:
        self.tally.kills[attempt.phase] += 1
        self.tally.victims["mpirun" if aim.rank is None else "the process" if case.ranks is None else "a rank"] += 1
        self.tally.cases[str(case)] += 1
        if attempt.phase == "merging":
            seconds = self.lengths[case.key].seconds
            self.tally.merging_at.append((attempt.fell_at - seconds["planning"]) / max(seconds["merging"], 0.001))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kill_loop")
    parser.add_argument("kills", type=int, help="how many kills")
    parser.add_argument("ranks", nargs="?", help="numbers of ranks, 0 for a plain process [0,1,2,4]")
    parser.add_argument("--seed", type=int, help="of the first round; the next ones count up [by the clock]")
    parser.add_argument("--rounds", type=int, help="end after so many rounds")
    parser.add_argument("--seconds", type=float, help="begin no round after that")
    parser.add_argument("--at-least", type=int, default=1, help="fewer kills in that time are a failure [1]")
    return parser.parse_args()


def run(arguments: argparse.Namespace, root: Path) -> int:
    ranks = tuple(int(word) or None for word in arguments.ranks.split(",")) if arguments.ranks else RANKS
    seed = int(time.time()) if arguments.seed is None else arguments.seed
    start = time.monotonic()
    print(f"kill_loop: seed {seed}", flush=True)
    loop = KillLoop(str(Path(os.environ["MERGEPIPE_BIN"]).resolve(strict=True)), root, ranks)
    tally, code = loop.tally, 0
    try:
        while tally.kills.total() < arguments.kills and tally.rounds != arguments.rounds:
            if arguments.seconds and time.monotonic() - start > arguments.seconds:
                break
            loop.round(seed + tally.rounds)
    except Broken as broken:
        print(f"kill_loop: FAILED\n{broken}\nOnce more: scripts/kill_loop.sh 1000000 --seed {seed + tally.rounds - 1} --rounds 1")
        code = 1
    print("\n".join(tally.lines()))
    if code == 0 and not arguments.rounds and tally.kills.total() < min(arguments.at_least, arguments.kills):
        print(f"kill_loop: FAILED: too few kills in {arguments.seconds} s")
        code = 1
    if code == 0:
        print(f"kill_loop: all held ({time.monotonic() - start:.0f} s)")
    return code


def main() -> int:
    arguments = parse_arguments()
    root = Path(tempfile.mkdtemp(prefix="mpkill-"))
    try:
        return run(arguments, root)
    finally:
        if os.environ.get("MERGEPIPE_E2E_KEEP"):
            print(f"kept {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
