"""The merge of a family too large for the disk: 20 experts in the shape of Llama-3.1-405B, nearly all holes."""

from __future__ import annotations

import json
from pathlib import Path

from measure import run
from workplace import Workplace, log

RANKS = 4
LIMITS = ("--io-budget-mb", "8192", "--memory-mb", "2048", "--output", "sparse", "--analyze", "probe")


def bench(place: Workplace, options: list[str]) -> dict:
    family = place.hole_family("405b", 20, 191)
    place.clear()
    log(f"405B, 20 experts, {RANKS} ranks")
    scratch = place.scratch
    sample = run(["mpirun", "-n", RANKS, place.mergepipe, "merge", "--db", scratch / "db.sqlite", "--base", family.base,
                  "--experts", *family.experts, "--out", scratch / "out", "--runs-dir", scratch / "runs",
                  *LIMITS, *options])
    folder = next((scratch / "runs").iterdir())
    meta, manifest = (json.loads((folder / name).read_text()) for name in ("meta.json", "manifest.json"))
    print(f"\n405B, 20 experts, {' '.join(LIMITS)}, {RANKS} ranks, wall {sample.seconds:.1f} s "
          f"(plan {meta['seconds']['plan']:.1f}, exec {meta['seconds']['exec']:.1f}):\n")
    print("| rank | expert GiB read | base GiB read | GiB written | peak MiB |\n|---|---|---|---|---|")
    for by_rank, rank in zip(manifest["io"]["by_rank"], meta["ranks"]):
        experts = by_rank["probe_bytes_read"] + by_rank["expert_bytes_read"]
        cells = [str(rank["rank"]), *(f"{count / 2**30:.2f}" for count in (
            experts, by_rank["base_bytes_read"], by_rank["output_bytes_written"])),
            f"{rank['peak_memory_bytes'] / 2**20:.0f}"]
        print(f"| {' | '.join(cells)} |")
    return {"case": "holes", "seconds": sample.seconds, "meta": meta["seconds"],
            "peak_mib": [rank["peak_memory_bytes"] / 2**20 for rank in meta["ranks"]]}
