"""verify --full: the inputs hashed again, and a sample of the output made again. And inputs that change."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import xxhash

import checkpoint
import traced
from checkpoint import ODD_BLOCK, Family, Model, make_family
from oracle import Options
from program import BAD_INPUT, FULL_READ, UNVERIFIED, USAGE, canonical, check_database, compact

TIES = Options("ties", block_size=ODD_BLOCK)
ALL = ("--full", "--sample", "1000000")
KINDS = {
    "ties": ["--top-p", "0.7"],
    "ties-block": ["--trim-scope", "block", "--top-p", "0.7"],
    "ties-read-again": ["--resident-mb", "0"],
    "avg": ["--strategy", "avg", "--weights", "1", "2", "--top-p", "0.5"],
    "dare": ["--strategy", "dare", "--density", "0.3", "--seed", "7", "--top-p", "0.6"],
    "other-dtype": ["--out-dtype", "f16"],
    "sparse": ["--output", "sparse", "--top-p", "0.4"],
    "sparse-avg": ["--output", "sparse", "--strategy", "avg", "--top-p", "0.4"],
}


@pytest.fixture(scope="module")
def made(scratch) -> Family:
    return make_family(scratch / "audit", "BF16", shards=2)


def copied(made: Family, root: Path) -> Family:
    copies = [Model(shutil.copytree(m.path, root / m.name), m.tensors) for m in [made.base, *made.experts]]
    return Family(copies[0], copies[1:])


def try_merge(program, made, *extra, out="merged"):
    return program.run("merge", "--base", made.base.path, "--experts", *made.paths(), "--block-size", ODD_BLOCK,
                       "--out", program.outputs / out, *extra)


def sampled(outcome) -> tuple[int, int]:
    """Blocks that were made again, and the seed."""
    match = re.search(r"^\[OK\] made again: (\d+) blocks of \d+ tensors, all equal \(--seed (\d+)\)$", outcome.stdout, re.M)
    assert match, outcome
    return int(match[1]), int(match[2])


# ----------------------------------------------------------------------------------------- what is as it should be

@pytest.mark.parametrize("kind", KINDS)
def test_a_good_output_passes(program, made, kind):
    try_merge(program, made, *KINDS[kind]).expect(0)
    out = program.outputs / "merged"
    manifest = json.loads((out / "manifest.json").read_text())
    field = "touched_blocks" if "sparse" in kind else "blocks"
    everything = sum(tensor[field] for tensor in manifest["tensors"])
    for ranks in (None, 3):
        outcome = program.run("verify", out, *ALL, ranks=ranks).expect(0)
        assert sampled(outcome)[0] == everything, f"not all of {everything} blocks{outcome}"
        assert "[OK] the inputs are what was read: " in outcome.stdout, outcome
    assert os.listdir(program.outputs) == ["merged"], "an audit left something"
    assert check_database(program.catalog) == "ok"


def test_a_materialized_output_passes(program, made):
    try_merge(program, made, *KINDS["sparse"]).expect(0)
    program.run("materialize", program.outputs / "merged", "--out", program.outputs / "full").expect(0)
    program.run("verify", program.outputs / "full", *ALL).expect(0)


def test_the_sample(program, made):
    try_merge(program, made, *KINDS["avg"]).expect(0)
    out = program.outputs / "merged"
    assert sampled(program.run("verify", out, "--full").expect(0))[0] == 16
    assert sampled(program.run("verify", out, "--full", "--sample", 3, "--seed", 11).expect(0)) == (3, 11)
    none = program.run("verify", out, "--full", "--sample", 0).expect(0)
    assert "inputs are what was read" in none.stdout and "made again" not in none.stdout, none
    assert "inputs" not in program.run("verify", out).expect(0).stdout, "a plain verify read inputs"
    program.run("verify", out, "--sample", 3).expect(USAGE)


@traced.needs_strace
def test_what_it_hashes(program, made):
    """All of the base, and of each expert what the manifest says was merged."""
    options = ["--strategy", "avg", "--top-p", "1", "--no-budget"]
    try_merge(program, made, *options).expect(0)
    outcome, trace = traced.run(program, "audit", "verify", program.outputs / "merged", "--full", "--sample", "0")
    outcome.expect(0)
    sizes = {m.name: sum(t.nbytes for t in m.tensors.values()) for m in [made.base, *made.experts]}
    assert trace.bytes_of(made.base.path) == sizes["base"]
    assert trace.expert_bytes(made) == made.merge_bytes()


# ------------------------------------------------------------------------------------------------- changed inputs

def read_byte(made: Family, manifest: dict, model: str) -> tuple[Path, int, str]:
    """A byte that the merge read of a model: its file, its place, and its tensor."""
    root = {m.name: m.path for m in [made.base, *made.experts]}[model]
    for entry in manifest["tensors"]:
        sources = [s for s in entry["experts"] if manifest["experts"][s["expert"]]["id"] == model]
        if entry["dtype"] != "BF16" or entry["blocks"] < 2:
            continue
        if model != "base" and (not sources or not sources[0]["blocks"]):
            continue
        first = 0 if model == "base" else int(re.match(r"\d+", sources[0]["blocks"])[0])
        for path in checkpoint.weight_files(root):
            begin, header = checkpoint.read_header(path)
            if entry["name"] in header:
                return path, begin + header[entry["name"]]["data_offsets"][0] + first * ODD_BLOCK * 2, entry["name"]
    raise AssertionError(f"nothing of {model} was read")


def flip_unseen(path: Path, position: int) -> None:
    """One bit in place; size, inode and time stay."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("model", ["base", "expert_a", "expert_b"])
@pytest.mark.parametrize("ranks", [None, 2])
def test_an_input_that_changed_unseen(program, made, model, ranks):
    mine = copied(made, program.root / "mine")
    merge = program.merge(mine, "--top-p", "0.7", options=TIES)
    path, position, tensor = read_byte(mine, merge.manifest, model)
    flip_unseen(path, position)
    program.run("verify", merge.out, ranks=ranks).expect(0)
    outcome = program.run("verify", merge.out, "--full", ranks=ranks).expect(BAD_INPUT)
    assert len(outcome.problems()) == 1, outcome
    assert f"{path}: tensor '{tensor}': is not what the run read" in outcome.stderr, outcome
    replay = program.run("replay", merge.out, "--out", program.outputs / "again", ranks=ranks).expect(BAD_INPUT)
    assert model in replay.stderr and tensor in replay.stderr, replay
    assert os.listdir(program.outputs) == ["merged"]


@pytest.mark.parametrize("change", ["other-model", "gone"])
def test_an_input_that_is_another(program, made, change):
    mine = copied(made, program.root / "mine")
    merge = program.merge(mine, options=TIES)
    expert = mine.experts[1].path
    shutil.rmtree(expert)
    if change == "other-model":
        shutil.copytree(made.experts[0].path, expert)
    for command in [("verify", merge.out, "--full"), ("replay", merge.out, "--out", program.outputs / "again")]:
        outcome = program.run(*command).expect(BAD_INPUT)
        assert str(expert) in outcome.stderr and len(outcome.problems()) == 1, outcome
    moved = program.run("verify", merge.out, "--full", "--base", made.base.path, "--experts", *made.paths())
    moved.expect(0)


# --------------------------------------------------------------------------------- an output that is not the plan's

def forge(merge) -> tuple[str, int]:
    """Changes a block and every record of it, so that all hashes hold: the tensor and the block."""
    manifest = merge.manifest
    entry = next(t for t in manifest["tensors"] if t["dtype"] == "BF16" and t["touched_blocks"] > 2)
    path = merge.out / entry["file"]
    begin, header = checkpoint.read_header(path)
    first, last = (begin + offset for offset in header[entry["name"]]["data_offsets"])
    data = bytearray(path.read_bytes())
    data[first + ODD_BLOCK * 2] ^= 1  # in block 1
    path.write_bytes(data)

    size = ODD_BLOCK * 2
    blocks = [xxhash.xxh3_128_digest(bytes(data[at:min(at + size, last)])) for at in range(first, last, size)]
    entry["hash"] = xxhash.xxh3_128_hexdigest(b"".join(blocks))
    order = sorted((v["data_offsets"][0], v["data_offsets"][1], n) for n, v in header.items() if n != "__metadata__")
    hashes = {t["name"]: t["hash"] for t in manifest["tensors"]}
    parts = [xxhash.xxh3_128_digest(bytes(data[:begin]))] + [bytes.fromhex(hashes[name]) for _, _, name in order]
    next(f for f in manifest["files"] if f["name"] == entry["file"])["hash"] = xxhash.xxh3_128_hexdigest(b"".join(parts))
    rest = {key: value for key, value in manifest.items() if key != "manifest_hash"}
    manifest["manifest_hash"] = hashlib.sha256(compact(rest).encode()).hexdigest()
    for folder in (merge.out, merge.run):
        (folder / "manifest.json").write_text(canonical(manifest))
    return entry["name"], 1


@pytest.mark.parametrize("kind", ["ties", "avg"])
@pytest.mark.parametrize("ranks", [None, 2])
def test_a_forged_output(program, made, kind, ranks):
    merge = program.merged(try_merge(program, made, "--strategy", kind, *FULL_READ))
    tensor, block = forge(merge)
    where = ("--db", program.root / "none.sqlite")
    program.run("verify", merge.out, *where, ranks=ranks).expect(0)
    outcome = program.run("verify", merge.out, *where, *ALL, "--base", made.base.path, "--experts", *made.paths(),
                          ranks=ranks).expect(UNVERIFIED)
    assert len(outcome.problems()) == 1, outcome
    assert f"tensor '{tensor}', block {block}: is not what the plan gives from the inputs" in outcome.stderr, outcome


def test_without_the_run_folder_there_is_no_audit(program, made):
    merge = program.merge(made, options=TIES)
    shutil.rmtree(merge.run)
    outcome = program.run("verify", merge.out, "--full", "--db", program.root / "none.sqlite").expect(BAD_INPUT)
    assert len(outcome.problems()) == 1, outcome


# ------------------------------------------------------------------------- an expert that changes during the merge

@traced.needs_strace
@pytest.mark.parametrize("how", ["replaced", "rewritten"])
def test_an_expert_that_changes_during_the_merge(program, made, how):
    """Stopped when the staged weights have their size and their header, and none of the experts' is read."""
    mine = copied(made, program.root / "mine")
    merge = traced.Stepped(program, mine)
    expert = checkpoint.weight_files(mine.experts[1].path)[-1]
    try:
        merge.run_to(r"/out/\.merged.*\.safetensors>")
        if how == "replaced":
            other = expert.with_suffix(".new")
            shutil.copy(expert, other)
            other.rename(expert)
        else:
            with open(expert, "r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"\x55")
        merge.go_on()
        code, errors = merge.end()
    finally:
        merge.kill()
    problems = [line for line in errors.splitlines() if line.startswith("mergepipe: error: ")]
    assert code == BAD_INPUT, errors
    assert len(problems) == 1 and str(expert) in problems[0], errors
    assert not (program.outputs / "merged").exists()
    assert check_database(program.catalog) == "ok"
    assert not list(program.root.glob("runs/*/manifest.json"))
    program.merge(mine)  # what is there now can be merged
