"""Sparse outputs: what they hold and cost, and that materialize makes the full output's very bytes of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import checkpoint
import strace_log
from checkpoint import ODD_BLOCK, Family, Model, make_family
from oracle import Options
from program import BAD_INPUT, DONE, UNVERIFIED, USAGE, Merge, Program

SPARSE = "sparse.safetensors"
SOME = ("--scoring", "uniform", "--top-p", "0.3")
STRATEGIES = {
    "avg": Options("avg", block_size=ODD_BLOCK),
    "ties": Options("ties", block_size=ODD_BLOCK),
    "ties-block": Options("ties", trim_scope="block", block_size=ODD_BLOCK),
    "dare": Options("dare", block_size=ODD_BLOCK),
}
OK_LINE = re.compile(r"\[OK\] materialized .+ -> (?P<out>.+) \| run=(?P<run>.+) \| plan=\d+\.\d\ds exec=\d+\.\ds")


def materialized(program: Program, sparse, *extra, out="made", **how) -> Merge:
    outcome = program.run("materialize", sparse, "--out", program.outputs / out, *extra, **how).expect(DONE)
    match = OK_LINE.fullmatch(outcome.stdout.partition("\n")[0])
    assert match, outcome
    return Merge(outcome, program.root / match["out"], program.root / match["run"], match.groupdict())


def files_of(directory: Path) -> dict[str, bytes]:
    return {name: data for name, data in checkpoint.all_files(directory).items() if name != "manifest.json"}


def check_all_forms(program: Program, made: Family, *extra, options: Options, ranks=None, ranks_later=None) -> None:
    """Sparse, then materialized, is the full output; and the sparse file holds the full one's touched blocks."""
    full = program.merge(made, *SOME, *extra, options=options, out="full")
    sparse = program.merge(made, *SOME, *extra, "--output", "sparse", options=options, out="sparse", ranks=ranks)
    assert sparse.manifest["output"] == "sparse" and full.manifest["output"] == "full"
    assert sparse.manifest["plan_hash"] == full.manifest["plan_hash"], "the form of the output is in the plan"
    check_sparse_file(sparse, full)
    again = materialized(program, sparse.out, ranks=ranks_later)
    assert files_of(again.out) == files_of(full.out)
    check_record(again.manifest, full.manifest)


def touched_blocks(tensor: dict) -> list[int]:
    """Of a tensor in manifest.json: ranges, or bits."""
    touched: set[int] = set()
    for expert in tensor["experts"]:
        text = expert["blocks"]
        if text.startswith("x:"):
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(text[2:]), np.uint8), bitorder="little")
            touched |= set(np.flatnonzero(bits).tolist())
        elif text:
            for part in text.split(","):
                first, _, last = part.partition("-")
                touched |= set(range(int(first), int(last or first) + 1))
    assert len(touched) == tensor["touched_blocks"]
    return sorted(touched)


def check_sparse_file(sparse: Merge, full: Merge) -> None:
    begin, header = checkpoint.read_header(sparse.out / SPARSE)
    block = sparse.manifest["block_size"]
    assert begin % 4096 == 0
    assert header["__metadata__"] == {"format": "mergepipe.sparse/1", "block_size": str(block),
                                      "base_fingerprint": sparse.manifest["base"]["fingerprint"]}
    mine, theirs = checkpoint.read_file(sparse.out / SPARSE), full.tensors()
    expected = {}
    for tensor in sparse.manifest["tensors"]:
        blocks = touched_blocks(tensor)
        assert tensor["file"] == (SPARSE if blocks else ""), tensor["name"]
        if not blocks:
            continue
        flat = theirs[tensor["name"]].reshape(-1)
        expected[tensor["name"] + ".index"] = np.array(blocks, np.int64)
        expected[tensor["name"] + ".blocks"] = np.concatenate([flat[b * block : (b + 1) * block] for b in blocks])
    assert expected, "nothing is touched: the test shows nothing"
    checkpoint.assert_same_bits(expected, mine)
    names = {p.name for p in sparse.out.iterdir()}
    assert names == {SPARSE, "plan.json", "manifest.json"} | {
        name for name in checkpoint.side_files(full.out)}, "not the side files of the full output, or an index"
    assert (sparse.out / "plan.json").read_bytes() == (sparse.run / "plan.json").read_bytes()


def check_record(made: dict, full: dict) -> None:
    """The two manifests differ in names and in what was moved."""
    may_differ = {"run_id", "model_id", "io", "manifest_hash"}
    assert {key for key in full if made.get(key) != full[key]} <= may_differ
    assert made["io"]["expert_bytes_read"] == 0 and made["io"]["probe_bytes_read"] == 0
    for key in ("output_bytes_written", "copied_bytes", "budget_bytes", "planned_expert_bytes"):
        assert made["io"][key] == full["io"][key], key


# ------------------------------------------------------------------------------------------------ same bytes

@pytest.mark.parametrize("ranks", [None, 4])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy(program, family, strategy, dtype, ranks):
    shards = 1 if ranks is None else 2
    check_all_forms(program, family(dtype, shards=shards), options=STRATEGIES[strategy], ranks=ranks, ranks_later=2)


@pytest.mark.parametrize("out_dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("shards", [1, 2])
def test_other_dtypes(program, family, out_dtype, shards):
    """Untouched blocks are converted when the full output is made."""
    made = family("BF16" if out_dtype != "bf16" else "F32", shards=shards)
    check_all_forms(program, made, "--out-dtype", out_dtype, options=STRATEGIES["ties"], ranks=2, ranks_later=4)


@pytest.mark.parametrize("extra", [("--resident-mb", "0"), ("--block-size", "1"), ("--top-p", "1", "--no-budget"),
                                   ("--block-size", "7", "--threads", "3")], ids=" ".join)
def test_other_options(program, family, extra):
    made = family("BF16", experts=3, shards=2)
    full = program.merge(made, "--scoring", "uniform", *extra, options=Options(), out="full")
    sparse = program.merge(made, "--scoring", "uniform", *extra, "--output", "sparse", options=Options(), out="sparse")
    check_sparse_file(sparse, full)
    again = materialized(program, sparse.out, "--threads", "2")
    assert files_of(again.out) == files_of(full.out)


def test_a_base_that_is_one_file(program, family):
    made = family("F32")
    single = Family(Model(made.base.path / "model.safetensors", made.base.tensors), made.experts)
    check_all_forms(program, single, options=STRATEGIES["avg"])


def test_one_block_touched(program, family):
    made, least = family("F32"), ("--scoring", "uniform", "--top-p", "1e-9")
    full = program.merge(made, *least, options=STRATEGIES["avg"], out="full")
    sparse = program.merge(made, *least, "--output", "sparse", options=STRATEGIES["avg"], out="sparse")
    assert sum(t["touched_blocks"] for t in sparse.manifest["tensors"]) == 1
    check_sparse_file(sparse, full)
    assert files_of(materialized(program, sparse.out).out) == files_of(full.out)


def test_the_base_can_be_elsewhere(program, family):
    """Neither the experts nor the registered base are needed, nor the catalog."""
    made = family("BF16", shards=2)
    mine = Family(copy_model(made.base, program.root), [copy_model(e, program.root) for e in made.experts])
    full = program.merge(mine, *SOME, options=STRATEGIES["ties"], out="full")
    sparse = program.merge(mine, *SOME, "--output", "sparse", options=STRATEGIES["ties"], out="sparse")
    for expert in mine.experts:
        shutil.rmtree(expert.path)
    moved = mine.base.path.rename(program.root / "moved")
    program.catalog.unlink()
    shutil.rmtree(program.root / "runs")
    again = materialized(program, sparse.out, "--base", moved)
    assert files_of(again.out) == files_of(full.out)


def copy_model(model: Model, root: Path) -> Model:
    path = Path(shutil.copytree(model.path, root / "models" / model.path.name))
    return Model(path, model.tensors)


# ------------------------------------------------------------------------------------------------ the records

@pytest.fixture(scope="module")
def shared(new_program):
    return new_program("sparse")


@pytest.fixture(scope="module")
def made(scratch) -> Family:
    return make_family(scratch / "sparse-family", "BF16", shards=2)


@pytest.fixture(scope="module")
def sparse(shared, made):
    """One sparse output, for tests that only look at it (or put back what they change)."""
    return shared.merge(made, *SOME, "--output", "sparse", options=STRATEGIES["ties"], out="sparse", ranks=2)


@pytest.fixture(scope="module")
def full(shared, made):
    return shared.merge(made, *SOME, options=STRATEGIES["ties"], out="full")


@pytest.fixture(scope="module")
def whole(shared, sparse):
    """The sparse output made full."""
    return materialized(shared, sparse.out, out="whole", ranks=2)


@pytest.mark.parametrize("ranks", [None, 2])
def test_verify(shared, sparse, whole, ranks):
    for merge in (sparse, whole):
        shared.run("verify", merge.out, ranks=ranks).expect(DONE)


@pytest.mark.parametrize("ranks", [None, 3])
def test_replay_of_a_sparse_run_is_sparse(shared, sparse, ranks):
    for i, name in enumerate((sparse.run.name, sparse.out)):
        out = shared.outputs / f"replay-{ranks}-{i}"
        shared.run("replay", name, "--out", out, ranks=ranks).expect(DONE)
        assert files_of(out) == files_of(sparse.out)
        shared.run("verify", out).expect(DONE)


def test_replay_of_a_materialized_run_merges(shared, whole, full):
    out = shared.outputs / "replay-whole"
    shared.run("replay", whole.run.name, "--out", out).expect(DONE)
    assert files_of(out) == files_of(full.out)
    assert json.loads((out / "manifest.json").read_text())["io"]["expert_bytes_read"] > 0


def test_diff_of_the_runs_shows_names_and_io_only(shared, whole, full):
    lines = shared.run("diff", whole.run.name, full.run.name).expect(DONE).stdout.splitlines()
    assert lines
    assert all(re.match(r"(run_id|model_id|manifest_hash|io/|io:)", line) for line in lines), lines
    assert "differ" not in shared.run("diff", whole.out, full.out).expect(DONE).stdout.partition("\n")[0]


def test_explain(shared, sparse, whole):
    touched = next(t["name"] for t in sparse.manifest["tensors"] if t["touched_blocks"])
    for merge in (sparse, whole):
        for name in (merge.run.name, merge.out):
            assert merge.run.name in shared.run("explain", name).expect(DONE).stdout
        assert "expert_a" in shared.run("explain", merge.run.name, "--tensor", touched).expect(DONE).stdout


def test_the_run_id_names_the_sparse_output(shared, sparse, whole):
    again = materialized(shared, sparse.run.name, out="by-id")
    assert files_of(again.out) == files_of(whole.out)


def test_json(shared, sparse):
    outcome = shared.run("materialize", sparse.out, "--out", shared.outputs / "json", "--json", "--model-id", "j")
    record = json.loads(outcome.expect(DONE).stdout)
    assert record["model_id"] == "j" and record["expert_bytes_read"] == 0
    assert record["plan_hash"] == sparse.manifest["plan_hash"]


def test_catalog_rows(shared, sparse, whole):
    """Both are runs; only the full one is a model."""
    connection = sqlite3.connect(shared.catalog)
    try:
        runs = {row[0] for row in connection.execute("SELECT run_id FROM runs")}
        models = {row[0] for row in connection.execute("SELECT id FROM models")}
    finally:
        connection.close()
    assert {sparse.run.name, whole.run.name} <= runs
    assert "whole" in models and "sparse" not in models
    shared.assert_catalog_intact()


@pytest.mark.parametrize("command", ["merge", "register", "diff"])
def test_a_sparse_output_is_no_model(shared, made, sparse, command):
    arguments = {
        "merge": ["merge", "--base", sparse.out, "--experts", *made.paths(), "--out", shared.outputs / "x"],
        "register": ["register", sparse.out],
        "diff": ["diff", sparse.out / SPARSE, made.base.path],
    }[command]
    outcome = shared.run(*arguments).expect(BAD_INPUT)
    assert "sparse output" in outcome.stderr and "mergepipe materialize" in outcome.stderr, outcome
    assert len(outcome.problems()) == 1


def test_overwrite(program, family):
    made = family("F32")
    sparse = program.merge(made, *SOME, "--output", "sparse", options=STRATEGIES["avg"], out="m")
    again = program.merge(made, *SOME, "--output", "sparse", "--overwrite", options=STRATEGIES["avg"], out="m")
    assert files_of(again.out) == files_of(sparse.out)
    program.merge(made, *SOME, "--overwrite", options=STRATEGIES["avg"], out="m")
    assert not (sparse.out / SPARSE).exists()
    assert [p.name for p in program.outputs.iterdir()] == ["m"]


# ------------------------------------------------------------------------------------------------ the cost

LARGE = {  # 600 KB a model, so that headers and side files do not matter
    "embed.weight": (401, 197), "layers.0.weight": (211, 403), "layers.1.weight": (199, 601), "bias": (97,),
}


@pytest.mark.skipif("MERGEPIPE_NO_STRACE" in os.environ, reason="MERGEPIPE_NO_STRACE is set")
@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize("strategy", ["avg", "ties"])
def test_read_and_write_cost_falls(program, scratch, strategy, ranks):
    """What strace sees: of the base's weights only the touched blocks are read, and only they are written;
    integer tensors are compared as in the full merge."""
    made = make_large(scratch / "sparse-large")
    options = Options(strategy, block_size=500)
    full, full_read, full_written = traced(program, made, "full", options, ranks)
    sparse, sparse_read, sparse_written = traced(program, made, "sparse", options, ranks)
    touched = sum(t.nbytes for n, t in checkpoint.read_file(sparse.out / SPARSE).items() if n.endswith(".blocks"))
    weights = checkpoint.weight_bytes(made.base.path)
    assert 0.15 * weights < touched < 0.25 * weights
    assert full_read == weights
    assert sparse_read == touched + compared_bytes(made.base.path)
    assert full_written == (full.out / "model.safetensors").stat().st_size
    assert sparse_written == (sparse.out / SPARSE).stat().st_size
    assert sparse.manifest["io"]["output_bytes_written"] == touched
    assert sparse_written < 0.3 * full_written


def compared_bytes(path: Path) -> int:
    tensors = checkpoint.read_model(path).values()
    return sum(t.nbytes for t in tensors if checkpoint.NAMES[t.dtype] in ("I64", "U8", "BOOL"))


def make_large(folder: Path) -> Family:
    if not folder.exists():
        make_family(folder, "BF16", shapes=LARGE)
    models = [Model(folder / name, {}) for name in ("base", "expert_a", "expert_b")]
    return Family(models[0], models[1:])


def traced(program: Program, made: Family, form: str, options: Options, ranks) -> tuple[Merge, int, int]:
    """A merge, the bytes of the base's weights that it read, and the bytes of weights that it wrote."""
    reads, writes = program.root / f"reads-{form}", program.root / f"writes-{form}"
    arguments = ("--scoring", "uniform", "--top-p", "0.2", "--output", form)
    program.merge(made, *arguments, options=options, out=f"first-{form}", ranks=ranks)  # takes the fingerprints
    merge = program.merge(made, *arguments, options=options, out=form, ranks=ranks,
                          prefix=strace_log.command(reads))
    tracer = ["strace", "-f", "-y", "-s", "0", "-o", str(writes), "-e", "trace=pwrite64", "-e", "signal=none"]
    program.merge(made, *arguments, options=options, out=f"again-{form}", ranks=ranks, prefix=tracer)
    path = made.base.path / "model.safetensors"
    begin, _ = checkpoint.read_header(path)
    base = strace_log.parse(reads)[str(path.resolve())]
    assert not base.other
    counted = base.bytes_from(begin)
    assert counted == merge.manifest["io"]["base_bytes_read"], "what was read is not what the manifest says"
    return merge, counted, written_to(writes, program.outputs)


def written_to(log: Path, outputs: Path) -> int:
    """Bytes that pwrite64 put into weight files below `outputs`. A call that another thread interrupts is on two
    lines; the second has the result, but no path, so every pair of them is joined first."""
    unfinished: dict[str, str] = {}
    total = 0
    for line in log.read_text(errors="replace").splitlines():
        thread, _, text = line.partition(" ")
        if text.rstrip().endswith("<unfinished ...>"):
            unfinished[thread] = text
            continue
        if "resumed>" in text:
            text = unfinished.pop(thread) + text
        if str(outputs.resolve()) in text and ".safetensors>" in text:
            total += int(text.rsplit("= ", 1)[1].split()[0])
    return total


# ------------------------------------------------------------------------------------------------ bad input

def refused(program: Program, *arguments, code=BAD_INPUT, says: str, **how) -> None:
    """One line, and nothing left behind."""
    before = sorted(p.name for p in program.outputs.iterdir())
    runs = sorted(p.name for p in (program.root / "runs").iterdir())
    outcome = program.run("materialize", *arguments, "--out", program.outputs / "refused", **how)
    outcome.expect(code)
    assert says in outcome.stderr, f"{says!r} is not said{outcome}"
    assert len(outcome.problems()) == 1, outcome
    assert sorted(p.name for p in program.outputs.iterdir()) == before
    assert sorted(p.name for p in (program.root / "runs").iterdir()) == runs


def places_of(path: Path) -> list[int]:
    """In the length, the header, the padding, an index, and the blocks."""
    begin, header = checkpoint.read_header(path)
    size = path.stat().st_size
    blocks = min(begin + e["data_offsets"][0] for n, e in header.items() if n.endswith(".blocks"))
    return [0, 9, 60, begin - 1, begin, blocks - 8, blocks, (blocks + size) // 2, size - 1]


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_damaged_sparse_file(shared, sparse, ranks):
    path = sparse.out / SPARSE
    original = path.read_bytes()
    try:
        for place in places_of(path):
            changed = bytearray(original)
            changed[place] ^= 1
            path.write_bytes(changed)
            refused(shared, sparse.out, says=SPARSE, ranks=ranks)
            verified = shared.run("verify", sparse.out, ranks=ranks).expect(UNVERIFIED)
            assert SPARSE in verified.stderr
        for data in (original[:-1], original + b"\0", b""):
            path.write_bytes(data)
            refused(shared, sparse.out, says=SPARSE, ranks=ranks)
            shared.run("verify", sparse.out, ranks=ranks).expect(UNVERIFIED)
    finally:
        path.write_bytes(original)
    shared.run("verify", sparse.out).expect(DONE)


@pytest.mark.parametrize("name,code", [("plan.json", UNVERIFIED), ("manifest.json", UNVERIFIED),
                                       ("tokenizer.json", BAD_INPUT)])
def test_another_file_is_damaged(shared, sparse, name, code):
    path = sparse.out / name
    original = path.read_bytes()
    changed = bytearray(original)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    try:
        refused(shared, sparse.out, says=name, code=code)
        verified = shared.run("verify", sparse.out).expect(UNVERIFIED)
        assert name in verified.stderr
    finally:
        path.write_bytes(original)
    shared.run("verify", sparse.out).expect(DONE)


def test_another_base(shared, made, sparse):
    refused(shared, sparse.out, "--base", made.experts[0].path, says=str(made.experts[0].path))


def test_a_base_that_changed_in_a_touched_block(program, scratch, family):
    """Outside the samples of its fingerprint: only the hashes of its blocks tell."""
    made = make_large(scratch / "sparse-large")
    base = copy_model(made.base, program.root)
    mine = Family(base, made.experts)
    sparse = program.merge(mine, *SOME, "--output", "sparse", options=Options("avg", block_size=500), out="sparse")
    path = base.path / "model.safetensors"
    begin, header = checkpoint.read_header(path)
    size = path.stat().st_size
    samples = [begin + (size - begin - 4096) * i // 15 for i in range(16)]
    name = "layers.0.weight"
    block = next(b for b in touched_blocks(next(t for t in sparse.manifest["tensors"] if t["name"] == name))
                 if all(not s - 1000 <= begin + header[name]["data_offsets"][0] + b * 1000 < s + 4096 for s in samples))
    stamp = path.stat()
    with path.open("r+b") as file:
        file.seek(begin + header[name]["data_offsets"][0] + block * 1000 + 1)
        file.write(b"\x40")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    refused(program, sparse.out, says=f"base: tensor '{name}'")


def test_what_is_not_sparse(shared, made, sparse, full):
    refused(shared, full.out, says="is not a sparse output")
    refused(shared, full.run.name, says="is not a sparse output")
    refused(shared, made.base.path, says="is not a sparse output")
    refused(shared, shared.root / "nowhere", says="nowhere")
    refused(shared, "no_such_run", says="no_such_run")


def test_an_existing_target(shared, sparse, full):
    before = checkpoint.all_files(full.out)
    outcome = shared.run("materialize", sparse.out, "--out", full.out).expect(USAGE)
    assert "exists already" in outcome.stderr and len(outcome.problems()) == 1
    for target in (sparse.out, sparse.out / "inside"):
        shared.run("materialize", sparse.out, "--out", target, "--overwrite").expect(USAGE)
    assert checkpoint.all_files(full.out) == before
    shared.run("verify", sparse.out).expect(DONE)


def test_a_base_with_a_file_of_the_records_name(program, family):
    made = family("F32")
    base = copy_model(made.base, program.root)
    (base.path / "plan.json").write_text("{}")
    mine = Family(base, made.experts)
    outcome = program.try_merge(mine, *SOME, "--output", "sparse").expect(BAD_INPUT)
    assert "plan.json" in outcome.stderr and len(outcome.problems()) == 1
    program.assert_nothing_published()
