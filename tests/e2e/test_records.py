"""What a merge leaves behind: the [OK] line, the run folder, and verify, replay, explain and diff on them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xxhash

import checkpoint
import oracle
from checkpoint import ODD_BLOCK, Family, Model, make_family
from oracle import Options
from program import BAD_INPUT, FULL_READ, UNVERIFIED, canonical, compact, megabytes

TIES = Options("ties", block_size=ODD_BLOCK)
SHAPES = {  # more than 64 KiB an expert, so that not every byte is in the fingerprint
    "embed.weight": (501, 97), "layers.0.weight": (397, 201), "bias": (97,), "scale": (), "none": (0, 3),
    "名前.weight": (33, 7),
}


@pytest.fixture(scope="module")
def made(scratch) -> Family:
    return make_family(scratch / "records", "BF16", shards=2, shapes=SHAPES)


@pytest.fixture(scope="module")
def shared(new_program):
    return new_program("records")


@pytest.fixture(scope="module")
def merge(shared, made):
    """One budgeted merge on two ranks, for tests that only look at it (or put back what they change)."""
    fixed = made.fingerprint_bytes() + made.compare_bytes()
    return shared.merge(made, "--io-budget-mb", megabytes(fixed + made.merge_bytes() // 2), "--top-p", "0.8",
                        "--model-id", "demo-merged", options=TIES, ranks=2)


# --------------------------------------------------------------------------------------------- the [OK] line

def test_ok_line(shared, made, merge):
    assert merge.ok["base"] == "base"
    assert merge.ok["experts"] == "'expert_a', 'expert_b'"
    assert merge.ok["out"] == str(shared.outputs / "merged"), "the output is not named as it was given"
    assert re.fullmatch(r"runs/\d{8}_\d{6}_demo-merged", merge.ok["run"]), merge.ok["run"]
    assert merge.outcome.stdout.count("[OK]") == 1, "more than one rank printed"


def test_ok_line_with_one_expert_and_relative_paths(program, family):
    made = family("F32", experts=1)
    outcome = program.run("merge", "--base", made.base.path, "--experts", *made.paths(), "--out", "out/x y",
                          "--runs-dir", "elsewhere/runs")
    merge = program.merged(outcome)
    assert merge.ok["experts"] == "'expert_a'"
    assert merge.ok["out"] == "out/x y"
    assert re.fullmatch(r"elsewhere/runs/\d{8}_\d{6}_x_y", merge.ok["run"]), merge.ok["run"]


def test_runs_in_the_same_second_get_their_own_folders(program, family):
    runs = {program.merge(family("F32"), "--model-id", "same", out=f"m{i}").ok["run"] for i in range(3)}
    assert len(runs) == 3


def test_nothing_else_is_left(program, family):
    """Beside the output there is no staging directory and no lock; the catalog is whole."""
    program.merge(family("F32"), ranks=2)
    assert [p.name for p in program.outputs.iterdir()] == ["merged"]
    program.assert_catalog_intact()


@pytest.mark.parametrize("ranks", [None, 2])
def test_dry_run_writes_nothing(program, family, ranks):
    program.try_merge(family("F32"), "--dry-run", ranks=ranks).expect(0)
    program.assert_nothing_published()
    assert not (program.root / "runs").exists() or not any((program.root / "runs").iterdir())


def test_overwrite_replaces_the_whole_directory(program, family):
    made = family("F32")
    program.merge(made, options=Options("avg"))
    (program.outputs / "merged" / "stale").write_text("from before")
    merge = program.merge(made, "--overwrite", *FULL_READ, options=TIES)
    assert not (merge.out / "stale").exists()
    checkpoint.assert_same_bits(oracle.merge_model(made.base.tensors, made.expert_tensors(), TIES), merge.tensors())
    assert [p.name for p in program.outputs.iterdir()] == ["merged"]


# ---------------------------------------------------------------------------------- the output and run folder

def test_run_folder(made, merge):
    assert {p.name for p in merge.run.iterdir()} >= {"plan.json", "manifest.json", "meta.json"}
    assert (merge.run / "manifest.json").read_bytes() == (merge.out / "manifest.json").read_bytes()
    for name in ("plan.json", "manifest.json", "meta.json"):
        record = json.loads((merge.run / name).read_text())
        assert record["schema"] == f"mergepipe.{name.removesuffix('.json')}/1"
        assert (merge.run / name).read_text() == canonical(record), f"{name} is not in canonical form"


def test_plan_states_its_own_hash(merge):
    plan = merge.plan
    rest = {key: value for key, value in plan.items() if key not in ("plan_hash", "plan_id")}
    assert plan["plan_hash"] == hashlib.sha256(compact(rest).encode()).hexdigest()
    assert plan["plan_id"] == plan["plan_hash"][:16]


def test_plan_has_no_paths_or_times(scratch, merge):
    text = (merge.run / "plan.json").read_text()
    assert str(scratch) not in text and "/" not in text.replace("mergepipe.plan/1", "")
    assert not re.search(r"20\d\d-\d\d-\d\d", text)


def test_output_is_a_hugging_face_directory(made, merge):
    """The base's files by name, side files equal, the index right, data aligned, modes by the umask."""
    assert {p.name for p in merge.out.iterdir()} == {p.name for p in made.base.path.iterdir()} | {"manifest.json"}
    assert checkpoint.side_files(merge.out) == checkpoint.side_files(made.base.path)
    index = json.loads((merge.out / checkpoint.INDEX).read_text())
    theirs = json.loads((made.base.path / checkpoint.INDEX).read_text())
    assert index["weight_map"] == theirs["weight_map"]
    assert index["metadata"]["total_size"] == theirs["metadata"]["total_size"]
    for path in checkpoint.weight_files(merge.out):
        begin, header = checkpoint.read_header(path)
        assert begin % 4096 == 0, f"{path.name}: data start at {begin}"
        assert header["__metadata__"] == {"format": "pt"}
        base_names = list(checkpoint.read_header(made.base.path / path.name)[1])
        in_order = sorted((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"])
        assert sorted(in_order) == sorted(n for n in base_names if n != "__metadata__")
    probe = merge.run.parent / "mode-probe"
    probe.touch()
    for path in merge.out.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode == probe.stat().st_mode, f"{path.name} does not obey the umask"
    probe.unlink()


def block_hashes(tensor: np.ndarray, block: int) -> list[bytes]:
    flat = np.ascontiguousarray(tensor).reshape(-1)
    return [xxhash.xxh3_128_digest(flat[oracle.block_slice(b, flat.size, block)].tobytes())
            for b in range(oracle.block_count(flat.size, block))]


def test_manifest_hashes_are_those_of_the_output(merge):
    """Tensor hash: XXH3-128 over its blocks' hashes; recomputed from what the official package reads."""
    manifest, tensors = merge.manifest, merge.tensors()
    assert [t["name"] for t in manifest["tensors"]] == [t["name"] for t in merge.plan["tensors"]]
    assert {t["name"] for t in manifest["tensors"]} == set(tensors)
    for entry in manifest["tensors"]:
        tensor = tensors[entry["name"]]
        hashes = block_hashes(tensor, manifest["block_size"])
        assert entry["hash"] == xxhash.xxh3_128_hexdigest(b"".join(hashes)), entry["name"]
        assert entry["blocks"] == len(hashes) and entry["shape"] == list(tensor.shape)
        assert entry["dtype"] == checkpoint.NAMES[tensor.dtype]
    for entry in manifest["files"]:
        assert entry["size"] == (merge.out / entry["name"]).stat().st_size, entry["name"]
    for entry in manifest["side_files"]:
        data = (merge.out / entry["name"]).read_bytes()
        assert entry["size"] == len(data) and entry["hash"] == xxhash.xxh3_128_hexdigest(data), entry["name"]


def test_manifest_names_what_was_done(merge):
    manifest, plan = merge.manifest, merge.plan
    assert manifest["run_id"] == Path(merge.ok["run"]).name and manifest["model_id"] == "demo-merged"
    for key in ("plan_id", "plan_hash", "base", "experts"):
        assert manifest[key] == plan[key], key
    touched = {t["name"]: t["touched_blocks"] for t in plan["tensors"]}
    assert {t["name"]: t["touched_blocks"] for t in manifest["tensors"]} == touched
    assert {t["name"]: t["rule"] for t in manifest["tensors"]} == {t["name"]: t["rule"] for t in plan["tensors"]}


def test_io_by_rank_adds_up(merge):
    io = merge.manifest["io"]
    for key in ("expert_bytes_read", "base_bytes_read", "output_bytes_written", "copied_bytes"):
        assert sum(rank[key] for rank in io["by_rank"]) == io[key], key
    assert io["probe_bytes_read"] + io["expert_bytes_read"] <= io["budget_bytes"]
    weights = sum(t.nbytes for t in merge.tensors().values())
    assert io["output_bytes_written"] + io["copied_bytes"] >= weights


# --------------------------------------------------------------------------------------------------- verify

@pytest.mark.parametrize("ranks", [None, 2])
def test_verify_finds_nothing_wrong(shared, merge, ranks):
    shared.run("verify", merge.out, ranks=ranks).expect(0)


def assert_flip_is_noticed(shared, merge, path: Path, position: int) -> None:
    """One flipped bit, verify, and the byte put back."""
    original = path.read_bytes()
    changed = bytearray(original)
    changed[position] ^= 1
    path.write_bytes(changed)
    try:
        outcome = shared.run("verify", merge.out)
        assert outcome.code == UNVERIFIED, (
            f"{path.name}: byte {position} of {len(original)} flipped ({original[position:position + 1]!r} in "
            f"{original[max(0, position - 20):position + 20]!r}), expected exit {UNVERIFIED}{outcome}")
        assert outcome.problems(), f"nothing on stderr{outcome}"
        assert path.name in outcome.stderr or merge.out.name in outcome.stderr, f"{path.name} is not named{outcome}"
    finally:
        path.write_bytes(original)


@pytest.fixture
def still_good(shared, merge):
    """The test leaves the merge as it found it."""
    yield
    shared.run("verify", merge.out).expect(0)


@pytest.mark.parametrize("shard", [0, 1])
def test_verify_notices_a_flip_in_a_shard(shared, merge, still_good, shard):
    path = checkpoint.weight_files(merge.out)[shard]
    begin, header = checkpoint.read_header(path)
    size = path.stat().st_size
    text_end = path.read_bytes()[:begin].rstrip(b" ").__len__()
    places = {0, 3, 8, 8 + 40, text_end - 1, begin - 1, begin, begin + 1, size - 1}
    if text_end < begin:
        places |= {text_end, (text_end + begin) // 2}
    places |= {begin + int(i) for i in np.random.default_rng(shard).integers(0, size - begin, 15)}
    for position in sorted(places):
        assert_flip_is_noticed(shared, merge, path, position)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja", checkpoint.INDEX])
def test_verify_notices_a_flip_in_a_side_file(shared, merge, still_good, name):
    path = merge.out / name
    size = path.stat().st_size
    for position in sorted({0, size // 3, size // 2, size - 1}):
        assert_flip_is_noticed(shared, merge, path, position)


def positions_of(path: Path, count: int = 60) -> list[int]:
    """Every k-th byte, the last, and those of the schema's name and version."""
    data = path.read_bytes()
    schema = data.index(b'"schema"')
    return sorted(set(range(0, len(data), max(1, len(data) // count))) | {len(data) - 1}
                  | set(range(schema, data.index(b"\n", schema), 3)) | {data.index(b'/1"', schema) + 1})


@pytest.mark.parametrize("where", ["out/manifest.json", "run/manifest.json", "run/plan.json"])
def test_verify_notices_a_flip_in_a_record(shared, merge, still_good, where):
    folder, name = where.split("/")
    path = (merge.out if folder == "out" else merge.run) / name
    for position in positions_of(path):
        assert_flip_is_noticed(shared, merge, path, position)


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "config.json", checkpoint.INDEX])
def test_verify_notices_a_deleted_file(shared, merge, still_good, name):
    path, away = merge.out / name, shared.root / "away"
    path.rename(away)
    try:
        outcome = shared.run("verify", merge.out).expect(UNVERIFIED)
        assert name in outcome.stderr, f"the missing file is not named{outcome}"
    finally:
        away.rename(path)


@pytest.mark.parametrize("change", ["cut", "grown"])
def test_verify_notices_another_size(shared, merge, still_good, change):
    path = checkpoint.weight_files(merge.out)[0]
    original = path.read_bytes()
    path.write_bytes(original[:-1] if change == "cut" else original + b"\0")
    try:
        shared.run("verify", merge.out).expect(UNVERIFIED)
    finally:
        path.write_bytes(original)


def test_verify_of_what_is_no_merge(program, made):
    """A directory without a manifest, and none at all."""
    for path in (made.base.path, program.root / "nowhere"):
        outcome = program.run("verify", path)
        assert outcome.code in (BAD_INPUT, UNVERIFIED), outcome
        assert str(path) in outcome.stderr, f"{path} is not named{outcome}"


# --------------------------------------------------------------------------------------------------- replay

@pytest.mark.parametrize("ranks", [None, 1, 2, 3])
def test_replay_gives_the_same_bytes(shared, merge, ranks):
    out = shared.outputs / f"replay-{ranks}"
    shared.run("replay", Path(merge.ok["run"]).name, "--out", out, ranks=ranks).expect(0)
    again = {n: d for n, d in checkpoint.all_files(out).items() if n != "manifest.json"}
    assert again == merge.output_files()
    replayed = json.loads((out / "manifest.json").read_text())
    for kind in ("tensors", "files", "side_files"):
        assert replayed[kind] == merge.manifest[kind], f"the manifests differ in {kind}"
    shared.run("verify", out).expect(0)


def test_replay_takes_the_run_folder_too(shared, merge):
    out = shared.outputs / "replay-folder"
    shared.run("replay", merge.run, "--out", out).expect(0)
    again = {n: d for n, d in checkpoint.all_files(out).items() if n != "manifest.json"}
    assert again == merge.output_files()


EVERY_KIND = {
    "avg": ["--strategy", "avg", "--weights", "1", "2"],
    "dare": ["--strategy", "dare", "--density", "0.3", "--seed", "7"],
    "ties-block": ["--trim-scope", "block"],
    "ties-read-again": ["--resident-mb", "0"],
    "other-dtype": ["--out-dtype", "f16", "--no-normalize"],
}


@pytest.mark.parametrize("ranks", [None, 3])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_replay_of_each_kind_of_run(program, made, kind, ranks):
    out = program.outputs / "first"
    line = program.run("merge", "--base", made.base.path, "--experts", *made.paths(), "--out", out, "--top-p", "0.7",
                       *EVERY_KIND[kind])
    line.expect(0)
    program.run("replay", out, "--out", program.outputs / "again", ranks=ranks).expect(0)
    first, again = (checkpoint.all_files(program.outputs / name) for name in ("first", "again"))
    assert {n: d for n, d in first.items() if n != "manifest.json"} == {
        n: d for n, d in again.items() if n != "manifest.json"}


def test_replay_refuses_a_changed_side_file(program, made):
    mine = copied(made, program.root / "mine")
    program.merge(mine, *FULL_READ, options=TIES)
    config = program.root / "mine" / "base" / "config.json"
    config.write_text(config.read_text() + " ")
    outcome = program.run("replay", program.outputs / "merged", "--out", program.outputs / "again")
    outcome.expect(BAD_INPUT)
    assert "config.json" in outcome.stderr


def copied(made: Family, root: Path) -> Family:
    copies = [Model(shutil.copytree(m.path, root / m.name), m.tensors) for m in [made.base, *made.experts]]
    return Family(copies[0], copies[1:])


def test_replay_from_moved_inputs(shared, made, merge, program):
    """Inputs are known by fingerprint; --base and --experts say where they are now."""
    moved = copied(made, program.root / "moved")
    out = program.outputs / "replay"
    shared.run("replay", Path(merge.ok["run"]).name, "--out", out, "--base", moved.base.path,
               "--experts", *moved.paths()).expect(0)
    assert {n: d for n, d in checkpoint.all_files(out).items() if n != "manifest.json"} == merge.output_files()


@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize("model", ["base", "expert_a", "expert_b"])
@pytest.mark.parametrize("place", ["sampled", "between-samples"])
def test_replay_refuses_a_changed_input(program, made, model, place, ranks):
    """A byte changed in place, at the same size: where the fingerprint looks, and where only the merge does."""
    mine = copied(made, program.root / "mine")
    merge = program.merge(mine, *FULL_READ, options=TIES)
    path = checkpoint.weight_files(program.root / "mine" / model)[0]
    begin, _ = checkpoint.read_header(path)
    data = bytearray(path.read_bytes())
    assert len(data) - begin > 80_000, "the test needs a file that is not sampled as a whole"
    data[begin + (16 if place == "sampled" else 4096 + 200)] ^= 1
    path.write_bytes(data)
    outcome = program.run("replay", Path(merge.ok["run"]).name, "--out", program.outputs / "replay", ranks=ranks)
    allowed = (BAD_INPUT,) if place == "sampled" else (BAD_INPUT, UNVERIFIED)
    assert outcome.code in allowed, f"expected exit {allowed}{outcome}"
    assert model in outcome.stderr, f"the changed model is not named{outcome}"
    assert [p.name for p in program.outputs.iterdir()] == ["merged"], "a refused replay left something"


def test_replay_refuses_a_changed_plan(program, made):
    merge = program.merge(made, options=TIES)
    plan = merge.run / "plan.json"
    plan.write_text(plan.read_text().replace('"density": 0.6', '"density": 0.7'))
    outcome = program.run("replay", Path(merge.ok["run"]).name, "--out", program.outputs / "replay")
    assert outcome.code in (BAD_INPUT, UNVERIFIED), outcome
    assert not (program.outputs / "replay").exists()


@pytest.mark.parametrize("command", [("replay", "20200101_000000_none", "--out", "out/x"),
                                     ("explain", "20200101_000000_none")])
def test_an_unknown_run(program, command):
    outcome = program.run(*command)
    assert outcome.code in (2, BAD_INPUT), outcome
    assert "20200101_000000_none" in outcome.stderr, outcome
    program.assert_nothing_published()


# ----------------------------------------------------------------------------------------- explain and diff

@pytest.mark.parametrize("how", ["id", "folder"])
def test_explain(shared, made, merge, how):
    run = Path(merge.ok["run"]).name if how == "id" else merge.run
    text = shared.run("explain", run).expect(0).stdout
    for word in (merge.plan["plan_id"], "ties", "base", "expert_a", "expert_b"):
        assert word in text, f"explain does not tell {word!r}:\n{text}"


def test_explain_json(shared, merge):
    text = shared.run("explain", Path(merge.ok["run"]).name, "--json").expect(0).stdout
    json.loads(text)
    assert merge.plan["plan_id"] in text


def test_plan_prints_a_summary(program, made):
    text = program.run("plan", "--base", made.base.path, "--experts", *made.paths()).expect(0).stdout
    assert re.search(r"[0-9a-f]{16}", text), f"no plan id:\n{text}"
    program.assert_nothing_published()


@pytest.mark.parametrize("others", [[], ["--json"]])
def test_diff_of_a_model_with_itself(program, made, others):
    outcome = program.run("diff", made.base.path, made.base.path, *others).expect(0)
    if others:
        assert all(d["l2"] == 0 for d in distances(json.loads(outcome.stdout)).values())
    else:
        assert re.search(r"equal|identical|no difference|same", outcome.stdout, re.IGNORECASE), outcome


# diff's fields by any of the names that fit; the first that is there counts.
FIELDS = {"l2": ("l2", "l2_distance", "distance", "norm"), "max": ("max_abs", "max", "max_abs_difference", "linf")}


def distances(report: dict) -> dict[str, dict[str, float]]:
    """By tensor: l2 and max of the difference, from diff --json."""
    result = {}
    for entry in report["tensors"]:
        result[entry["name"]] = {}
        for wanted, names in FIELDS.items():
            found = [name for name in names if name in entry]
            assert found, f"diff --json has no field like {names}: {sorted(entry)}"
            result[entry["name"]][wanted] = entry[found[0]]
    return result


def test_diff_distances(program, made):
    """Against NumPy in double precision, for every float tensor."""
    text = program.run("diff", made.base.path, made.experts[0].path, "--json").expect(0).stdout
    found = distances(json.loads(text))
    for name, tensor in made.base.tensors.items():
        if not oracle.is_float(tensor.dtype):
            continue
        other = made.experts[0].tensors[name]
        delta = other.astype(np.float64) - tensor.astype(np.float64)
        if not delta.any():
            assert found.get(name, {"l2": 0})["l2"] == 0, name
            continue
        assert found[name]["l2"] == pytest.approx(np.sqrt((delta**2).sum()), rel=1e-5), name
        assert found[name]["max"] == pytest.approx(np.abs(delta).max(), rel=1e-6), name


def test_diff_finds_one_changed_element(program, made):
    other = copied(made, program.root / "one").base
    path = checkpoint.weight_files(other.path)[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    text = program.run("diff", made.base.path, other.path).expect(0).stdout
    last = max(((entry["data_offsets"][1], -entry["data_offsets"][0], name)
                for name, entry in checkpoint.read_header(path)[1].items() if name != "__metadata__"
                if entry["data_offsets"][0] < entry["data_offsets"][1]))[2]
    assert last in text, f"the changed tensor {last} is not named:\n{text}"
