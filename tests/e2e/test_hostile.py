"""Files from strangers: what is no file is refused at once, what is too large before it is held in memory, and plans,
manifests and catalogs are data: never trusted for a path or a size.

Each case must end in seconds, in a promised exit code and with a line that names the file; never by a signal, never
in an internal error, and with nothing written where it was not asked to.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import struct
from pathlib import Path

import pytest

import checkpoint
from checkpoint import INDEX
from oracle import Options
from program import BAD_INPUT, DONE, NO_SPACE, UNVERIFIED, USAGE, canonical, compact

SECONDS = 30
SHAPES = {"a.weight": (20, 11), "b.weight": (40,), "c.scale": ()}
SMALL_BLOCKS = Options(block_size=100)
MOST_MEMORY = 3 << 30  # of address space, of which a merge of nothing takes a part


@pytest.fixture
def inputs(program):
    """A small good family in the working directory, to be spoilt."""
    checkpoint.make_family(program.root / "good", "F32", shapes=SHAPES)
    for path in (program.root / "good").iterdir():
        path.rename(program.root / path.name)
    (program.root / "good").rmdir()
    return program.root


def run(program, *arguments):
    outcome = program.run(*arguments, timeout=60, prefix=("prlimit", f"--as={MOST_MEMORY}"))
    assert outcome.seconds < SECONDS, f"took {outcome.seconds:.1f} s{outcome}"
    assert outcome.code in (DONE, USAGE, BAD_INPUT, NO_SPACE, UNVERIFIED), f"not a refusal{outcome}"
    assert "bad_alloc" not in outcome.stderr, f"memory was asked for before the size was looked at{outcome}"
    assert "\x1b" not in outcome.stdout + outcome.stderr, f"a control character reached the terminal{outcome}"
    return outcome


def merge(program, *extra, out="out/merged"):
    return run(program, "merge", "--base", "base", "--experts", "expert_a", "expert_b", "--out", out,
               *SMALL_BLOCKS.arguments(), *extra)


def refused(outcome, *words: str, code: int = BAD_INPUT):
    outcome.expect(code)
    assert "[OK]" not in outcome.stdout
    problems = outcome.problems()
    assert any(all(word in line for word in words) for line in problems), f"no line says {words}{outcome}"


# ------------------------------------------------------------------------------------------ what is no file

def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    # By its name alone, as the path of a socket must be short; it stays when the socket is closed.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


def a_directory(path: Path) -> None:
    path.mkdir()


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


KINDS = [a_pipe, a_socket, a_directory, a_device, a_loop]


def replace(path: Path, make) -> None:
    path.unlink(missing_ok=True)
    make(path)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("model", ["base", "expert_b"])
def test_no_file_for_weights(program, inputs, make, model):
    replace(inputs / model / "model.safetensors", make)
    refused(merge(program), f"{model}/model.safetensors")
    program.assert_nothing_published()


@pytest.mark.parametrize("make", KINDS)
def test_no_file_for_the_index(program, inputs, make):
    (inputs / "base" / "model.safetensors").rename(inputs / "base" / "a.safetensors")
    make(inputs / "base" / INDEX)
    refused(merge(program), f"base/{INDEX}")
    program.assert_nothing_published()


@pytest.mark.parametrize("make", KINDS)
def test_no_file_for_the_config(program, inputs, make):
    replace(inputs / "expert_a" / "config.json", make)
    refused(merge(program), "expert_a/config.json")
    program.assert_nothing_published()


@pytest.mark.parametrize("make", KINDS)
def test_no_file_beside_the_weights(program, inputs, make):
    """Side files do not decide the merge: what is none is left out, and the manifest says so."""
    replace(inputs / "base" / "README.md", make)
    outcome = merge(program).expect(DONE)
    assert not os.path.lexists(inputs / "out" / "merged" / "README.md") or make is a_directory, outcome
    if make is not a_directory:
        manifest = json.loads((inputs / "out/merged/manifest.json").read_text())
        assert "README.md" in [file["name"] for file in manifest["left_out"]]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("name", ["plan.json", "manifest.json"])
def test_no_file_for_a_record(program, inputs, make, name):
    merge(program).expect(DONE)
    (folder,) = (inputs / "runs").iterdir()
    replace(folder / name, make)
    refused(run(program, "explain", folder), name)
    refused(run(program, "replay", folder, "--out", "out/again"), name)


@pytest.mark.parametrize("make", KINDS)
def test_no_file_for_the_manifest_of_an_output(program, inputs, make):
    merge(program).expect(DONE)
    replace(inputs / "out/merged/manifest.json", make)
    refused(run(program, "verify", "out/merged"), "manifest.json")
    refused(merge(program, "--overwrite"), "manifest.json")


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("suffix", ["", "-journal", "-wal"])
def test_no_file_for_the_catalog(program, inputs, make, suffix):
    """sqlite3 opens what has the name of a journal, too."""
    if suffix and make is a_loop:
        return  # for sqlite3 there is none
    merge(program).expect(DONE)
    replace(Path(f"{program.catalog}{suffix}"), make)
    refused(run(program, "models"), "db.sqlite")
    refused(merge(program, out="out/again"), "db.sqlite")


def test_a_lock_file_that_is_a_link_makes_nothing_elsewhere(program, inputs):
    (inputs / "out" / ".merged.mergepipe.lock").symlink_to(inputs / "elsewhere")
    outcome = program.run("merge", "--base", "base", "--experts", "expert_a", "--out", "out/merged")
    assert outcome.code == 5, outcome
    assert not (inputs / "elsewhere").exists()


# -------------------------------------------------------------------------------------------- links and names

def test_weights_may_be_links_as_in_a_hugging_face_cache(program, inputs):
    """snapshots/REVISION holds links into blobs/."""
    merge(program, out="out/plain").expect(DONE)
    for model in ("base", "expert_a", "expert_b"):
        cache = inputs / "cache" / model
        (cache / "blobs").mkdir(parents=True)
        (cache / "snapshots" / "main").mkdir(parents=True)
        for number, path in enumerate(sorted((inputs / model).iterdir())):
            path.rename(cache / "blobs" / f"{number:064}")
            (cache / "snapshots" / "main" / path.name).symlink_to(f"../../blobs/{number:064}")
    snapshots = [f"cache/{model}/snapshots/main" for model in ("base", "expert_a", "expert_b")]
    run(program, "merge", "--base", snapshots[0], "--experts", *snapshots[1:], "--out", "out/linked",
        *SMALL_BLOCKS.arguments()).expect(DONE)
    plain, linked = (checkpoint.all_files(inputs / "out" / name) for name in ("plain", "linked"))
    assert {name: data for name, data in plain.items() if name != "manifest.json"} == \
        {name: data for name, data in linked.items() if name != "manifest.json"}
    assert not any(path.is_symlink() for path in (inputs / "out" / "linked").iterdir())


@pytest.mark.parametrize("name", ["../expert_a/model.safetensors", "sub/model.safetensors", "/etc/passwd", "..", ".",
                                  "", "a\\b", "a\x00b", "manifest.json", "config.json", INDEX])
def test_an_index_names_weights_of_its_directory_alone(program, inputs, name):
    (inputs / "base" / "model.safetensors").unlink()
    (inputs / "base" / INDEX).write_text(json.dumps({"weight_map": {"a.weight": name}}))
    refused(merge(program), f"base/{INDEX}", "a.weight")
    program.assert_nothing_published()


def test_weights_with_the_name_of_a_side_file(program, inputs):
    """They come into the output once, as weights."""
    (inputs / "base" / "model.safetensors").rename(inputs / "base" / "README.md")
    names = checkpoint.read_header(inputs / "base" / "README.md")[1].keys() - {"__metadata__"}
    (inputs / "base" / INDEX).write_text(json.dumps({"weight_map": {name: "README.md" for name in names}}))
    merge(program).expect(DONE)
    assert set(checkpoint.read_file(inputs / "out/merged/README.md")) == names
    run(program, "verify", "out/merged").expect(DONE)


# ------------------------------------------------------------------------------------------------------ sizes

DEEP = '{"a":' + "[" * 200_000 + "]" * 200_000 + "}"


def test_deep_json(program, inputs):
    """Of readers that recurse, none gets to see it."""
    merge(program).expect(DONE)
    (folder,) = (inputs / "runs").iterdir()
    for name in ("deep.json", "deeper.json"):
        (inputs / name).write_text(DEEP)
    refused(run(program, "diff", "deep.json", "deeper.json"), "deep.json", "nested")
    (inputs / "expert_a" / "config.json").write_text(DEEP)
    refused(merge(program, out="out/again"), "expert_a/config.json", "nested")
    shutil.copy(inputs / "base" / "config.json", inputs / "expert_a" / "config.json")
    (inputs / "expert_a" / "model.safetensors").rename(inputs / "expert_a" / "a.safetensors")
    (inputs / "expert_a" / INDEX).write_text('{"weight_map":' + DEEP + "}")
    refused(merge(program, out="out/again"), f"expert_a/{INDEX}", "nested")
    (folder / "meta.json").write_text(DEEP)
    program.catalog.unlink()
    run(program, "recover", "--yes")
    for name in ("manifest.json", "plan.json"):  # the plan is read first
        (folder / name).write_text(DEEP)
        refused(run(program, "explain", folder), name, "nested", code=UNVERIFIED)


def grow(path: Path, size: int) -> None:
    """A file of that size that takes no room on the disk."""
    with path.open("ab") as file:
        file.truncate(size)


def test_files_over_their_limits_are_refused_by_their_size(program, inputs):
    merge(program).expect(DONE)
    (folder,) = (inputs / "runs").iterdir()
    grow(folder / "plan.json", 1 << 40)
    refused(run(program, "explain", folder), "plan.json", "over the limit")
    grow(inputs / "out/merged/manifest.json", 1 << 40)
    refused(run(program, "verify", "out/merged"), "manifest.json", "over the limit")
    grow(inputs / "expert_a" / "config.json", 1 << 40)
    (inputs / "expert_b" / "model.safetensors").rename(inputs / "expert_b" / "a.safetensors")
    grow(inputs / "expert_b" / INDEX, 1 << 40)
    outcome = merge(program, out="out/again")
    refused(outcome, "expert_a/config.json", "over the limit")
    refused(outcome, f"expert_b/{INDEX}", "over the limit")


def test_a_side_file_that_has_grown_is_not_hashed(program, inputs):
    merge(program).expect(DONE)
    grow(inputs / "out/merged/README.md", 1 << 40)
    refused(run(program, "verify", "out/merged"), "README.md", code=UNVERIFIED)


def test_weights_that_are_a_hole(program, inputs):
    """A terabyte that takes no room on the disk is found to be too large for the output, not read."""
    size = 1 << 40
    header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    for model in ("base", "expert_a", "expert_b"):
        path = inputs / model / "model.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        grow(path, 8 + len(header) + size)
    outcome = run(program, "merge", "--base", "base", "--experts", "expert_a", "--out", "out/merged",
                  "--scoring", "uniform")
    refused(outcome, "out", code=NO_SPACE)
    program.assert_nothing_published()
    refused(run(program, "plan", "--base", "base", "--experts", "expert_a", "--block-size", "1"), "--block-size",
            code=USAGE)


# --------------------------------------------------------------------------------- plans and manifests as data

def sealed(record: dict, kind: str) -> dict:
    """With the hash that it must state."""
    rest = {key: value for key, value in record.items() if key not in (f"{kind}_hash", *(["plan_id"] * (kind == "plan")))}
    digest = hashlib.sha256(compact(rest).encode()).hexdigest()
    return rest | {f"{kind}_hash": digest} | ({"plan_id": digest[:16]} if kind == "plan" else {})


class Record:
    """A run's folder and the records of its output, to be forged."""

    def __init__(self, program, *extra):
        merge(program, *extra).expect(DONE)
        (self.folder,) = (program.root / "runs").iterdir()
        self.out = program.root / "out" / "merged"
        self.plan = json.loads((self.folder / "plan.json").read_text())
        self.manifest = json.loads((self.folder / "manifest.json").read_text())

    def write(self) -> None:
        """A hostile sender's records are sound by themselves, hashes included."""
        plan = sealed(self.plan, "plan")
        manifest = sealed(self.manifest | {"plan_hash": plan["plan_hash"], "plan_id": plan["plan_id"]}, "manifest")
        for directory in (self.folder, self.out):
            (directory / "manifest.json").write_text(canonical(manifest))
            if directory == self.folder or (directory / "plan.json").exists():
                (directory / "plan.json").write_text(canonical(plan))


INPUTS = ("--base", "base", "--experts", "expert_a", "expert_b")


def use(program, record: Record) -> list:
    """Everything that reads the records of others, on what was forged."""
    record.write()
    name = os.path.basename(record.folder)
    outcomes = [run(program, "explain", record.folder), run(program, "explain", record.folder, "--json"),
                run(program, "explain", record.out, "--tensor", record.manifest["tensors"][-1]["name"]),
                run(program, "verify", record.out),
                run(program, "diff", record.folder / "plan.json", record.folder / "manifest.json"),
                run(program, "replay", record.folder, *INPUTS, "--out", "out/replayed"),
                run(program, "materialize", record.out, "--base", "base", "--out", "out/made")]
    program.catalog.unlink(missing_ok=True)
    outcomes.append(run(program, "recover", "--yes"))
    outcomes.append(run(program, "explain", name))
    return outcomes


def tree(root: Path) -> dict[str, bytes]:
    """All that must stay as it is: everything but outputs, run folders and the catalog."""
    own = ("out", "runs", "db.sqlite")
    return {name: data for name, data in checkpoint.all_files(root).items() if Path(name).parts[0] not in own}


PATHS = ["../escaped", "/tmp/mergepipe-escaped", "sub/../../../escaped", "a\x00b"]


def name_tensors(path):
    def forge(record):
        for tensor in (record.plan["tensors"][0], record.manifest["tensors"][0]):
            tensor["name"] = path
    return forge


def name_models(path):
    def forge(record):
        for each in (record.plan, record.manifest):
            each["base"]["id"] = path
            each["experts"][0]["id"] = path
        record.manifest["model_id"] = path
    return forge


def name_files(key):
    def with_path(path):
        def forge(record):
            record.manifest[key][0]["name"] = path
            if key == "files":
                for tensor in record.manifest["tensors"]:
                    tensor["file"] = path if tensor["file"] else ""
        return forge
    return with_path


def name_run(path):
    return lambda record: record.manifest.update({"run_id": path})


def name_the_output(path):
    def forge(record):
        meta = json.loads((record.folder / "meta.json").read_text()) | {"out": path}
        (record.folder / "meta.json").write_text(json.dumps(meta))
    return forge


FORGED_NAMES = {"tensors": name_tensors, "models": name_models, "files": name_files("files"),
                "side_files": name_files("side_files"), "run": name_run, "output": name_the_output}


@pytest.mark.parametrize("form", ["full", "sparse"])
@pytest.mark.parametrize("what", FORGED_NAMES)
def test_names_in_records_lead_nowhere(program, inputs, what, form):
    """Whatever a record calls things, nothing is written or removed outside of --out, and no reader fails badly."""
    original = Record(program, "--output", form)
    for path in PATHS:
        record = Record.__new__(Record)
        record.folder, record.out = original.folder, original.out
        record.plan, record.manifest = json.loads(json.dumps(original.plan)), json.loads(json.dumps(original.manifest))
        FORGED_NAMES[what](path)(record)
        before = tree(inputs)
        around = sorted(os.listdir(inputs.parent))
        use(program, record)
        assert tree(inputs) == before, f"{what} {path!r}: other files have changed"
        assert sorted(os.listdir(inputs.parent)) == around, f"{what} {path!r}: something came beside the tests"
        assert not os.path.exists("/tmp/mergepipe-escaped")
        assert {p.name for p in (inputs / "out").iterdir()} <= {"merged", "replayed", "made"}
        for name in ("replayed", "made"):
            shutil.rmtree(inputs / "out" / name, ignore_errors=True)
        for folder in (inputs / "runs").iterdir():
            if folder != record.folder:
                shutil.rmtree(folder)


def many_blocks(record):
    """Each tensor takes a few bytes here, and would take 16 MiB of bits in memory for each expert."""
    tensor = dict(record.plan["tensors"][0], shape=[1 << 26], selected=["", ""], equal=["", ""], touched_blocks=0)
    record.plan["options"]["block_size"] = record.manifest["block_size"] = 1
    record.plan["tensors"] = [dict(tensor, name=str(i)) for i in range(1000)]
    record.plan["planned"].update(merge_bytes=0)


def many_blocks_made(record):
    tensor = dict(record.manifest["tensors"][0], shape=[1 << 26], blocks=1 << 26, touched_blocks=0)
    tensor["experts"] = [dict(source, blocks="") for source in tensor["experts"]] or [
        {"expert": 0, "blocks": "", "read_hash": "0" * 32, "nonfinite": [0, 0], "differs": False}]
    record.manifest["block_size"] = 1
    record.manifest["tensors"] = [dict(tensor, name=str(i)) for i in range(1000)]


def more_experts_than_the_plan(record):
    record.manifest["experts"] += [record.manifest["experts"][0]] * 1000


def more_tensors_than_the_plan(record):
    last = record.manifest["tensors"][-1]
    record.manifest["tensors"] += [dict(last, name=f"{i}") for i in range(1000)]


def other_tensors_than_the_plan(record):
    record.manifest["tensors"].reverse()


def large_numbers(record):
    record.plan["tensors"][0]["shape"] = [1 << 58]
    record.plan["options"]["block_size"] = 1 << 24


def a_long_shape(record):
    record.plan["tensors"][0]["shape"] = [1] * 1000


def a_large_rank(record):
    record.manifest["io"]["by_rank"][0]["rank"] = 1e308


def a_manifest_that_lists_itself(record):
    record.manifest["side_files"][0]["name"] = "manifest.json"


FORGED = [many_blocks, many_blocks_made, more_experts_than_the_plan, more_tensors_than_the_plan,
          other_tensors_than_the_plan, large_numbers, a_long_shape, a_large_rank,
          a_manifest_that_lists_itself]


@pytest.mark.parametrize("forge", FORGED)
def test_numbers_in_records_are_checked(program, inputs, forge):
    record = Record(program)
    forge(record)
    record.write()
    explained = run(program, "explain", record.folder)
    assert explained.code in (BAD_INPUT, UNVERIFIED), explained
    outcomes = use(program, record)
    assert outcomes[5].code in (BAD_INPUT, UNVERIFIED), f"the replay went on{outcomes[5]}"
    assert not (inputs / "out" / "replayed").exists()


def test_text_in_records_does_not_reach_the_terminal_as_it_is(program, inputs):
    record = Record(program)
    forged = "x\x1b[2J\n[OK] forged\x9b1m"
    name_models(forged)(record)
    record.plan["options"]["scoring"] = forged
    for each in (record.plan, record.manifest):
        each["tensors"][0]["reason"] = forged
    for outcome in use(program, record):
        if "--json" in outcome.command:
            continue
        lines = (outcome.stdout + outcome.stderr).splitlines()
        assert not any(line.startswith("[OK] forged") for line in lines), outcome
        assert "\x9b" not in outcome.stdout + outcome.stderr, outcome


def test_meta_of_a_stranger(program, inputs):
    record = Record(program)
    path = record.folder / "meta.json"
    good = json.loads(path.read_text())
    for spoilt in [{"exit_status": 1e308}, {"exit_status": 1 << 63}, {"exit_status": -1}, {"exit_status": "0"},
                   {"out": "relative"}, {"out": "/dev/zero"}, {"out": str(inputs / "base")}, {"run_id": "../x"}]:
        path.write_text(json.dumps(good | spoilt))
        program.catalog.unlink(missing_ok=True)
        refused(run(program, "recover", "--yes"), "no complete run")
        assert not program.catalog.exists()
