"""The program behind scripts/bench.sh, which says what it does."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import holes
import table
from cases import COLD, NAMES, WARM, Case, Cases, choose
from measure import Failed, PageCache, Sample, run
from workplace import ROOT, Workplace, log

DEFAULT_CASES = tuple(name for name in NAMES if name not in ("mergekit", "programs", "holes"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench.sh")
    parser.add_argument("--dir", type=Path, default=ROOT / "build" / "bench", help="for inputs and outputs")
    parser.add_argument("--family", type=Path, help="a family that is there: base, expert_1, ... [made in --dir]")
    parser.add_argument("--shape", default="qwen3")
    parser.add_argument("--size", default="0.6b")
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--cases", default=",".join(DEFAULT_CASES), help=f"of {','.join(NAMES)}")
    parser.add_argument("--runs", type=int, default=5, help="of each program in each case")
    parser.add_argument("--mergekit-runs", type=int, default=2)
    parser.add_argument("--cold-only", action="store_true")
    parser.add_argument("--warm-only", action="store_true")
    parser.add_argument("--with-mergekit", action="store_true", help="the case mergekit too (20 minutes)")
    parser.add_argument("--against", type=Path, help="another mergepipe: the case programs too")
    parser.add_argument("--limit-threads", type=int, default=max(8, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("options", nargs="*", help="after --: more options of every merge")
    arguments = parser.parse_args()
    arguments.names = arguments.cases.split(",")
    unknown = [name for name in arguments.names if name not in NAMES]
    if unknown:
        parser.error(f"--cases: {unknown[0]} is not one of {', '.join(NAMES)}")
    if arguments.with_mergekit and "mergekit" not in arguments.names:
        arguments.names.append("mergekit")
    if arguments.against:
        arguments.against = arguments.against.resolve()
        if not os.access(arguments.against, os.X_OK):
            parser.error(f"--against: there is no program {arguments.against}")
        arguments.names.append("programs")
    return arguments


def measure_case(place: Workplace, cache: PageCache, case: Case, inputs: list[Path], rounds: int) -> list[list[Sample]]:
    """In turns, A B A B, so that what changes on the machine changes both."""
    samples: list[list[Sample]] = [[] for _ in case.contenders]
    for number in range(rounds):
        for contender, mine in zip(case.contenders, samples):
            place.clear()
            (cache.cool if case.cache == COLD else cache.warm)(inputs, place.wake)
            mine.append(run(contender.command, contender.environment))
            log(f"{case.name}, {case.cache}, round {number + 1}: {contender.name} {mine[-1].seconds:.2f} s")
    return samples


def describe(cache: PageCache, arguments: argparse.Namespace) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f} at the start; "
            f"{arguments.shape}/{arguments.size}, {arguments.experts} experts; cold: {cache.how}; "
            f"limit: {arguments.limit_threads} threads. The peak is that of the largest process.\n")


def bench(arguments: argparse.Namespace, place: Workplace) -> list[dict]:
    cache = PageCache()
    caches = [COLD] * (not arguments.warm_only) + [WARM] * (not arguments.cold_only)
    records: list[dict] = []
    if arguments.names != ["holes"]:
        family = place.family(arguments.shape, arguments.size, arguments.experts, arguments.family)
        cases = Cases(place, family, arguments.limit_threads, arguments.options)
        print(describe(cache, arguments))
        print(table.HEAD)
        for case in choose(cases, arguments.names, caches, arguments.against):
            rounds = arguments.mergekit_runs if case.contenders[-1].name == "mergekit" else arguments.runs
            samples = measure_case(place, cache, case, family.inputs, rounds)
            print(table.rows(case, samples), flush=True)
            records.append(table.record(case, samples))
    if "holes" in arguments.names:
        records.append(holes.bench(place, arguments.options))
    return records


def main() -> int:
    arguments = parse()
    try:
        place = Workplace(arguments.dir)
        try:
            records = bench(arguments, place)
        finally:
            place.close()
    except Failed as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
