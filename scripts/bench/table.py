"""Samples as Markdown."""

from __future__ import annotations

from statistics import median

from cases import Case
from measure import Sample

HEAD = ("| case | cache | program | wall s, median (least to most) | ratio to the first, median (least to most) "
        "| aim | peak MiB |\n|---|---|---|---|---|---|---|")


def spread(values: list[float], form: str) -> str:
    text = format(median(values), form)
    return text if len(values) == 1 else f"{text} ({min(values):{form}} to {max(values):{form}})"


def rows(case: Case, samples: list[list[Sample]]) -> str:
    """`samples`: of each contender, one a round. A ratio is that of two runs of one round, which follow each other."""
    reference = [sample.seconds for sample in samples[0]]
    lines = []
    for i, (contender, mine) in enumerate(zip(case.contenders, samples)):
        ratios = [sample.seconds / first for sample, first in zip(mine, reference)]
        cells = [case.name, case.cache, contender.name, spread([s.seconds for s in mine], ".2f"),
                 spread(ratios, ".3f" if max(ratios) < 10 else ".1f") if i else "",
                 contender.aim, f"{max(s.peak_mib for s in mine):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def record(case: Case, samples: list[list[Sample]]) -> dict:
    return {"case": case.name, "cache": case.cache,
            "contenders": [{"name": c.name, "aim": c.aim, "command": [str(word) for word in c.command],
                            "seconds": [s.seconds for s in mine], "peak_mib": [s.peak_mib for s in mine]}
                           for c, mine in zip(case.contenders, samples)]}
