"""Bad input: one line for each problem that names it, the promised exit code, nothing left behind, in seconds.

Each case makes its input, runs the program and says which words the lines must have. All cases run as one plain
process; those marked run on two ranks too.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import checkpoint
import oracle
from checkpoint import INDEX, raw_safetensors, write_safetensors
from oracle import Options
from program import BAD_INPUT, DONE, FULL_READ, USAGE, check_database, megabytes

SECONDS = 10
SHAPES = {"a.weight": (20, 11), "b.weight": (40,), "c.scale": ()}


@dataclass
class Case:
    """What to run and what must be said. Each entry of `says` is the words of one line."""

    says: list[tuple[str, ...]]
    extra: list = field(default_factory=list)
    base: str = "base"
    experts: list[str] = field(default_factory=lambda: ["expert_a", "expert_b"])
    code: int = BAD_INPUT
    only: bool = True  # there are no other lines than those of `says`
    all_options: list | None = None  # the whole command line, when it is not that of a merge


@pytest.fixture
def inputs(program):
    """A small good family in the working directory, to be spoilt."""
    checkpoint.make_family(program.root / "good", "F32", shapes=SHAPES)
    for path in (program.root / "good").iterdir():
        path.rename(program.root / path.name)
    return program.root


def run_case(program, case: Case, ranks: int | None):
    arguments = case.all_options
    if arguments is None:
        arguments = ["merge", "--base", case.base, "--experts", *case.experts, "--out", "out/merged", *case.extra]
    return program.run(*arguments, ranks=ranks, timeout=60)


def check_refusal(program, case: Case, ranks: int | None):
    """Runs a case, and checks all that is promised of a refusal."""
    outcome = run_case(program, case, ranks)
    outcome.expect(case.code)
    assert outcome.seconds < SECONDS, f"took {outcome.seconds:.1f} s{outcome}"
    assert "[OK]" not in outcome.stdout
    check_lines(outcome, case, ranks)
    program.assert_nothing_published()
    program.assert_catalog_intact()
    manifests = list(program.root.glob("runs/*/manifest.json"))
    assert not manifests, f"a refused merge has a record: {manifests}"
    return outcome


def check_lines(outcome, case: Case, ranks: int | None) -> None:
    problems = outcome.problems()
    assert problems, f"no line starts with 'mergepipe: error: '{outcome}"
    assert len(set(problems)) == len(problems), f"a problem is told twice{outcome}"
    for words in case.says:
        assert any(all(word in line for word in words) for line in problems), f"no line says {words}{outcome}"
    if case.only:
        assert len(problems) == len(case.says), f"expected {len(case.says)} lines{outcome}"
    for line in problems:
        assert "; " in line, f"the line does not say what to do: {line!r}{outcome}"
    if ranks is None:
        strange = [line for line in outcome.stderr.splitlines() if not line.startswith("mergepipe: ")]
        assert not strange, f"stderr has other lines: {strange}"


# ------------------------------------------------------------------------------------------- malformed files
# Each function spoils the file at `path`; its words are what the line must have besides the path.

DATA = bytes(32)


def entry(dtype="F32", shape=(2, 4), offsets=(0, 32)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def two(first, second) -> dict:
    return {"x": entry(shape=(4,), offsets=first), "y": entry(shape=(4,), offsets=second)}


def text_header(text: str | bytes, data: bytes = DATA):
    return lambda path: raw_safetensors(path, text, data)


def header(value: dict, data: bytes = DATA):
    return text_header(json.dumps(value), data)


def cut(size: int):
    """Keeps `size` bytes; a negative number cuts that many."""
    return lambda path: path.write_bytes(path.read_bytes()[:size])


def with_length(length: int):
    """A true file whose header length is a lie."""
    def spoil(path: Path) -> None:
        path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    return spoil


def cut_to_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: checkpoint.read_header(path)[0]])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


X = '"x":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]}'
MALFORMED = {
    "empty-file": (cut(0), ()),
    "cut-in-the-length": (cut(5), ()),
    "cut-in-the-header": (cut(50), ()),
    "truncated-data": (cut(-1), ()),
    "data-cut-to-nothing": (cut_to_header, ()),
    "data-after-the-last-tensor": (grow, ()),
    "header-longer-than-file": (with_length(1 << 20), ()),
    "header-over-the-limit": (with_length(100_000_001), ()),
    "header-length-2^64-1": (with_length(2**64 - 1), ()),
    "header-length-2^63": (with_length(2**63), ()),
    "header-length-0": (with_length(0), ()),
    "header-not-json": (text_header("{not json"), ()),
    "header-not-utf8": (text_header(b'{"\xff\xfe":{}}'), ()),
    "header-an-array": (text_header("[1, 2]"), ()),
    "header-starts-with-space": (text_header(" {" + X + "}"), ()),
    "header-padded-with-nul": (text_header("{" + X + "}\0\0\0"), ()),
    "header-trailing-text": (text_header("{" + X + "} {}"), ()),
    "header-nested-too-deep": (text_header('{"x":' + "[" * 200_000 + "]" * 200_000 + "}"), ()),
    "overlapping": (header(two((0, 16), (8, 24)), bytes(24)), ("y",)),
    "a-hole": (header(two((0, 16), (20, 36)), bytes(36)), ("y",)),
    "not-from-0": (header({"x": entry(offsets=(4, 36))}, bytes(36)), ("x",)),
    "end-before-begin": (header({"x": entry(offsets=(32, 0))}), ("x",)),
    "beyond-the-end": (header({"x": entry(shape=(4, 4), offsets=(0, 64))}), ()),
    "offset-2^64-1": (header({"x": entry(offsets=(0, 2**64 - 1))}), ("x",)),
    "offset-over-2^64": (header({"x": entry(offsets=(0, 2**64 + 32))}), ("x",)),
    "offset-negative": (header({"x": entry(offsets=(-32, 0))}), ("x",)),
    "offset-fraction": (text_header('{"x":{"dtype":"F32","shape":[2,4],"data_offsets":[0.0,32.0]}}'), ("x",)),
    "offsets-three": (text_header('{"x":{"dtype":"F32","shape":[2,4],"data_offsets":[0,16,32]}}'), ("x",)),
    "offsets-a-string": (text_header('{"x":{"dtype":"F32","shape":[2,4],"data_offsets":"0,32"}}'), ("x",)),
    "shape-overflows": (header({"x": entry(shape=(2**33, 2**33))}), ("x",)),
    "shape-overflows-in-bytes": (header({"x": entry(shape=(2**62, 1))}), ("x",)),
    "shape-overflows-before-a-0": (header({"x": entry(shape=(2**63, 2, 0), offsets=(0, 0))}, b""), ("x",)),
    "shape-negative": (header({"x": entry(shape=(-2, -4))}), ("x",)),
    "shape-not-the-size": (header({"x": entry(shape=(2, 5))}), ("x",)),
    "duplicate-tensor": (text_header("{" + X + "," + X + "}"), ("x",)),
    "duplicate-field": (text_header('{"x":{"dtype":"F32","dtype":"F32","shape":[2,4],"data_offsets":[0,32]}}'),
                        ("dtype",)),
    "duplicate-metadata-key": (text_header('{"__metadata__":{"k":"1","k":"2"},' + X + "}"), ("k",)),
    "duplicate-by-escape": (text_header("{" + X + "," + X.replace("x", "\\u0078") + "}"), ("x",)),
    "metadata-not-strings": (text_header('{"__metadata__":{"k":1},' + X + "}"), ("__metadata__",)),
    "no-dtype": (text_header('{"x":{"shape":[2,4],"data_offsets":[0,32]}}'), ("x", "dtype")),
    "no-shape": (text_header('{"x":{"dtype":"F32","data_offsets":[0,32]}}'), ("x", "shape")),
    "unknown-dtype": (header({"x": entry(dtype="Q4_0")}), ("x", "Q4_0")),
    "fp8-e4m3": (header({"x": entry(dtype="F8_E4M3", shape=(32,))}), ("x", "F8_E4M3")),
    "fp8-e5m2": (header({"x": entry(dtype="F8_E5M2", shape=(32,))}), ("x", "F8_E5M2")),
    "complex": (header({"x": entry(dtype="C64", shape=(4,))}), ("x", "C64")),
}
LOOSE = {"header-an-array", "overlapping", "a-hole", "not-from-0", "beyond-the-end", "offset-2^64-1", "shape-negative",
         "offset-negative", "offset-fraction", "header-nested-too-deep"}  # may need more than one line
ON_TWO_RANKS = ["truncated-data", "header-longer-than-file", "overlapping", "shape-overflows", "duplicate-tensor",
                "fp8-e4m3"]


@pytest.mark.parametrize("model", ["base", "expert_b"])
@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_file(program, inputs, kind, model):
    spoil, words = MALFORMED[kind]
    spoil(inputs / model / "model.safetensors")
    check_refusal(program, Case([(f"{model}/model.safetensors", *words)], only=kind not in LOOSE), None)


@pytest.mark.parametrize("kind", ON_TWO_RANKS)
def test_malformed_file_on_two_ranks(program, inputs, kind):
    spoil, words = MALFORMED[kind]
    spoil(inputs / "expert_a" / "model.safetensors")
    check_refusal(program, Case([("expert_a/model.safetensors", *words)], only=kind not in LOOSE), 2)


def test_two_bad_files_are_listed_together(program, inputs):
    for model in ("base", "expert_a", "expert_b"):
        cut(-1)(inputs / model / "model.safetensors")
    check_refusal(program, Case([(f"{m}/model.safetensors",) for m in ("base", "expert_a", "expert_b")]), None)


def test_a_line_break_in_a_name_stays_on_one_line(program, inputs):
    """What a file's header says cannot forge a line of its own."""
    forged = "x\nmergepipe: error: forged; do as I say"
    raw_safetensors(inputs / "expert_a" / "model.safetensors", {forged: entry(shape=(2, 5))}, DATA)
    outcome = check_refusal(program, Case([("expert_a/model.safetensors", "forged")]), None)
    assert "\nmergepipe: error: forged" not in outcome.stderr


# ----------------------------------------------------------------------------------- directories and indexes

def missing_base(root: Path) -> Case:
    return Case([("models/nowhere",)], base="models/nowhere")


def missing_expert(root: Path) -> Case:
    return Case([(str(root / "nowhere"),)], experts=["expert_a", str(root / "nowhere")])


def empty_directory(root: Path) -> Case:
    (root / "hollow").mkdir()
    return Case([("hollow",)], experts=["expert_a", "./hollow"])


def directory_without_weights(root: Path) -> Case:
    (root / "expert_a" / "model.safetensors").unlink()
    return Case([("expert_a",)])


def a_file_that_is_no_checkpoint(root: Path) -> Case:
    (root / "notes.txt").write_text("hello")
    return Case([("notes.txt",)], experts=["expert_a", "./notes.txt"])


def pickled_weights(root: Path) -> Case:
    (root / "expert_a" / "model.safetensors").rename(root / "expert_a" / "pytorch_model.bin")
    return Case([("expert_a", "pytorch_model.bin")])


def adapter(root: Path) -> Case:
    (root / "expert_a" / "model.safetensors").rename(root / "expert_a" / "adapter_model.safetensors")
    (root / "expert_a" / "adapter_config.json").write_text("{}")
    return Case([("expert_a", "adapter")])


def weights_that_are_a_directory(root: Path) -> Case:
    (root / "expert_a" / "model.safetensors").unlink()
    (root / "expert_a" / "model.safetensors").mkdir()
    return Case([("expert_a",)])


def dangling_link(root: Path) -> Case:
    path = root / "expert_a" / "model.safetensors"
    path.unlink()
    path.symlink_to("../blobs/gone")
    return Case([("expert_a/model.safetensors",)])


def sharded(root: Path, edit) -> Path:
    """Makes expert_a a sharded model whose index (an object) goes through `edit`; returns its index."""
    directory = root / "expert_a"
    tensors = dict(sorted(checkpoint.read_model(directory).items()))  # a.weight is in the first shard
    (directory / "model.safetensors").unlink()
    checkpoint.write_shards(directory, checkpoint.split(tensors, 2))
    path = directory / INDEX
    index = json.loads(path.read_text())
    path.write_text(edit(index) or json.dumps(index))
    return path


FIRST_SHARD = "model-00001-of-00002.safetensors"


def index_without_its_file(root: Path) -> Case:
    sharded(root, lambda index: None)
    (root / "expert_a" / FIRST_SHARD).unlink()
    return Case([(f"expert_a/{INDEX}", FIRST_SHARD)])


def index_names(name: str):
    def make(root: Path) -> Case:
        (root / "x").write_bytes((root / "expert_a" / "model.safetensors").read_bytes())
        sharded(root, lambda index: index["weight_map"].update({"a.weight": name}))
        return Case([(f"expert_a/{INDEX}", "a.weight", name)])
    return make


def index_with_a_tensor_too_many(root: Path) -> Case:
    sharded(root, lambda index: index["weight_map"].update({"ghost": FIRST_SHARD}))
    return Case([(f"expert_a/{INDEX}", "ghost")])


def index_with_a_tensor_too_few(root: Path) -> Case:
    sharded(root, lambda index: index["weight_map"].pop("a.weight") and None)
    return Case([(f"expert_a/{INDEX}", "a.weight")])


def index_with_the_wrong_file(root: Path) -> Case:
    sharded(root, lambda index: index["weight_map"].update({"a.weight": "model-00002-of-00002.safetensors"}))
    return Case([(f"expert_a/{INDEX}", "a.weight")])


def index_with_a_duplicate_key(root: Path) -> Case:
    sharded(root, lambda index: json.dumps(index).replace('"a.weight":', f'"a.weight": "{FIRST_SHARD}", "a.weight":'))
    return Case([(f"expert_a/{INDEX}", "a.weight")])


def index_that_is_no_json(root: Path) -> Case:
    sharded(root, lambda index: "{")
    return Case([(f"expert_a/{INDEX}",)])


def index_without_a_map(root: Path) -> Case:
    sharded(root, lambda index: "{}")
    return Case([(f"expert_a/{INDEX}", "weight_map")])


def one_tensor_in_two_shards(root: Path) -> Case:
    sharded(root, lambda index: None)
    directory = root / "expert_a"
    second = directory / "model-00002-of-00002.safetensors"
    twice = checkpoint.read_file(second) | {"a.weight": checkpoint.read_file(directory / FIRST_SHARD)["a.weight"]}
    write_safetensors(second, twice)
    return Case([("expert_a", "a.weight")], only=False)


def quantised_config(root: Path) -> Case:
    config = checkpoint.config_of("F32") | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (root / "expert_a" / "config.json").write_text(json.dumps(config))
    return Case([("expert_a/config.json", "gptq")])


def quantised_names(root: Path) -> Case:
    """GPTQ as AutoGPTQ writes it: no quantization_config, but tensors of codes and scales."""
    tensors = checkpoint.read_model(root / "expert_a") | {"l.qweight": np.zeros((4, 4), np.int32)}
    checkpoint.write_safetensors(root / "expert_a" / "model.safetensors", tensors)
    return Case([("expert_a", "l.qweight", "quantised")], only=False)


def runs_inside_the_output(root: Path) -> Case:
    return Case([("--runs-dir",)], extra=["--runs-dir", "out/merged/runs"], code=USAGE)


def runs_that_cannot_be(root: Path) -> Case:
    """Found before a weight is read, not after the merge."""
    (root / "a_file").write_text("")
    return Case([("a_file",)], extra=["--runs-dir", "a_file"], code=5, only=False)


def broken_config(root: Path) -> Case:
    (root / "base" / "config.json").write_text('{"torch_dtype": ')
    return Case([("base/config.json",)])


# ---------------------------------------------------------------------------------- experts that do not fit

def respell(root: Path, model: str, **changes) -> None:
    """Rewrites a model's tensors; None leaves one out. Underscores stand for dots."""
    tensors = dict(checkpoint.read_model(root / model))
    for key, value in changes.items():
        name = key.replace("_", ".", 1)
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    write_safetensors(root / model / "model.safetensors", tensors)


def another_shape(root: Path) -> Case:
    respell(root, "expert_a", a_weight=np.zeros((11, 20), np.float32))
    return Case([("expert_a", "a.weight", "[11, 20]", "[20, 11]")])


def another_vocabulary(root: Path) -> Case:
    respell(root, "expert_a", a_weight=np.zeros((19, 11), np.float32))
    return Case([("expert_a", "a.weight", "[19, 11]", "[20, 11]")])


def another_rank(root: Path) -> Case:
    respell(root, "expert_a", b_weight=np.zeros((1, 40), np.float32))
    return Case([("expert_a", "b.weight")])


def a_missing_tensor(root: Path) -> Case:
    respell(root, "expert_b", b_weight=None)
    return Case([("expert_b", "b.weight")])


def an_extra_tensor(root: Path) -> Case:
    respell(root, "expert_b", d_extra=np.zeros(3, np.float32))
    return Case([("expert_b", "d.extra")])


def integers_for_floats(root: Path) -> Case:
    respell(root, "expert_a", a_weight=np.zeros((20, 11), np.int32))
    return Case([("expert_a", "a.weight", "I32", "F32")])


def floats_for_integers(root: Path) -> Case:
    respell(root, "expert_a", model_codes=np.zeros(7, np.float32))
    return Case([("expert_a", "model.codes")])


def everything_at_once(root: Path) -> Case:
    """All that does not fit, of all experts, in one go."""
    respell(root, "expert_a", a_weight=np.zeros((3, 3), np.float32), b_weight=None, d_extra=np.zeros(2, np.float32))
    respell(root, "expert_b", a_weight=np.zeros((20, 11), np.int64), c_scale=None)
    return Case([("expert_a", "a.weight"), ("expert_a", "b.weight"), ("expert_a", "d.extra"),
                 ("expert_b", "a.weight"), ("expert_b", "c.scale")])


def unknown_id(root: Path) -> Case:
    return Case([("no-such-model",)], experts=["expert_a", "no-such-model"])


# --------------------------------------------------------------------------------------------------- options

def option(*words: str, says: tuple[str, ...] | None = None):
    return lambda root: Case([says or (words[0],)], extra=list(words), code=USAGE)


def command(*words: str, says: tuple[str, ...]):
    return lambda root: Case([says], all_options=list(words), code=USAGE)


def existing_output(root: Path) -> Case:
    """Kept as it is, to the byte. (check_refusal wants an empty out/, so this one lies elsewhere.)"""
    (root / "there").mkdir()
    return Case([("there", "--overwrite")], code=USAGE, all_options=[
        "merge", "--base", "base", "--experts", "expert_a", "--out", "there"])


def existing_output_file(root: Path) -> Case:
    (root / "there").write_text("a file")
    return Case([("there",)], code=USAGE, all_options=[
        "merge", "--base", "base", "--experts", "expert_a", "--out", "there"])


def budget_too_small_for_one_block(root: Path) -> Case:
    """Enough for the fingerprints, not for a block more."""
    small = sum(checkpoint.fingerprint_bytes(root / m) for m in ("expert_a", "expert_b"))
    return Case([("--io-budget-mb",)], extra=["--io-budget-mb", megabytes(small + 3)], code=USAGE)


def budget_too_small_for_fingerprints(root: Path) -> Case:
    return Case([("--io-budget-mb",)], extra=["--io-budget-mb", megabytes(100)], code=USAGE)


CASES = {
    case.__name__: case for case in (
        missing_base, missing_expert, empty_directory, directory_without_weights, a_file_that_is_no_checkpoint,
        pickled_weights, adapter, weights_that_are_a_directory, dangling_link, index_without_its_file,
        index_with_a_tensor_too_many, index_with_a_tensor_too_few, index_with_the_wrong_file,
        index_with_a_duplicate_key, index_that_is_no_json, index_without_a_map, one_tensor_in_two_shards,
        quantised_config, quantised_names, runs_inside_the_output, runs_that_cannot_be, broken_config, another_shape, another_vocabulary, another_rank, a_missing_tensor,
        an_extra_tensor, integers_for_floats, floats_for_integers, everything_at_once, unknown_id, existing_output,
        existing_output_file, budget_too_small_for_one_block, budget_too_small_for_fingerprints)
} | {
    "index_names_the_parent": index_names("../x"),
    "index_names_an_absolute_path": index_names("/etc/passwd"),
    "index_names_a_subdirectory": index_names("sub/x.safetensors"),
    "top_p_1.5": option("--top-p", "1.5"),
    "top_p_0": option("--top-p", "0"),
    "top_p_negative": option("--top-p", "-0.1"),
    "top_p_nan": option("--top-p", "nan"),
    "top_p_no_number": option("--top-p", "half"),
    "density_0": option("--density", "0"),
    "density_1.5": option("--density", "1.5"),
    "density_negative": option("--density", "-0.5"),
    "density_nan": option("--density", "nan"),
    "budget_negative": option("--io-budget-mb", "-1"),
    "budget_nan": option("--io-budget-mb", "nan"),
    "budget_huge": option("--io-budget-mb", "1e30"),
    "budget_and_no_budget": option("--io-budget-mb", "1", "--no-budget", says=("--no-budget",)),
    "device_cuda": option("--device", "cuda", says=("--device", "cuda")),
    "device_gpu_0": option("--device", "cuda:0", says=("--device", "cuda:0")),
    "strategy_unknown": option("--strategy", "tie", says=("--strategy", "ties")),
    "scoring_unknown": option("--scoring", "uniforn", says=("--scoring", "uniform")),
    "trim_scope_unknown": option("--trim-scope", "row"),
    "out_dtype_unknown": option("--out-dtype", "f8"),
    "nonfinite_unknown": option("--nonfinite", "maybe"),
    "weights_too_few": option("--weights", "1"),
    "weights_too_many": option("--weights", "1", "2", "3"),
    "weights_that_sum_to_0": option("--weights", "1", "-1", "--strategy", "avg"),
    "weights_nan": option("--weights", "1", "nan"),
    "weights_too_large_for_float32": option("--weights", "1", "1e300"),
    "lambda_infinite": option("--lambda", "inf"),
    "seed_negative": option("--seed", "-1"),
    "seed_too_large": option("--seed", str(2**64)),
    "block_size_0": option("--block-size", "0"),
    "block_size_negative": option("--block-size", "-5"),
    "block_size_huge": option("--block-size", str(2**40)),
    "threads_0": option("--threads", "0"),
    "memory_0": option("--memory-mb", "0"),
    "resident_negative": option("--resident-mb", "-1"),
    "model_id_with_a_slash": option("--model-id", "../evil"),
    "unknown_option": option("--bugdet", "1"),
    "no_base": command("merge", "--experts", "expert_a", "--out", "out/merged", says=("--base",)),
    "no_experts": command("merge", "--base", "base", "--out", "out/merged", says=("--experts",)),
    "no_out": command("merge", "--base", "base", "--experts", "expert_a", says=("--out",)),
    "unknown_command": command("murge", "--base", "base", says=("murge",)),
}
CASES_ON_TWO_RANKS = [
    "missing_base", "empty_directory", "index_without_its_file", "index_names_the_parent", "everything_at_once",
    "unknown_id", "existing_output", "top_p_1.5", "density_0", "budget_negative", "budget_too_small_for_one_block",
    "device_cuda", "quantised_config", "no_experts", "unknown_option",
]


def run_and_compare(program, inputs: Path, name: str, ranks: int | None) -> None:
    case = CASES[name](inputs)
    there = inputs / "there"
    before = there.read_bytes() if there.is_file() else there.exists()
    check_refusal(program, case, ranks)
    assert before == (there.read_bytes() if there.is_file() else there.exists()), "an existing output was touched"
    hidden = [p.name for p in inputs.iterdir() if p.name.startswith(".")]
    assert not hidden, f"left beside the output: {hidden}"


@pytest.mark.parametrize("name", CASES)
def test_bad_input(program, inputs, name):
    run_and_compare(program, inputs, name, None)


@pytest.mark.parametrize("name", CASES_ON_TWO_RANKS)
def test_bad_input_on_two_ranks(program, inputs, name):
    run_and_compare(program, inputs, name, 2)


def test_several_bad_options_are_listed_together(program, inputs):
    case = Case([("--top-p",), ("--density",), ("--io-budget-mb",)], code=USAGE,
                extra=["--top-p", "1.5", "--density", "0", "--io-budget-mb", "-1"])
    check_refusal(program, case, None)


def test_an_existing_catalog_survives_a_refusal(program, inputs):
    """Models that do not fit may be registered; the catalog stays whole and usable."""
    program.run("merge", "--base", "base", "--experts", "expert_b", "--out", "out/good").expect(DONE)
    respell(inputs, "expert_a", a_weight=np.zeros((3, 3), np.float32))
    program.run("merge", "--base", "base", "--experts", "expert_a", "--out", "out/merged").expect(BAD_INPUT)
    assert check_database(program.catalog) == "ok"
    assert [p.name for p in program.outputs.iterdir()] == ["good"]
    program.run("merge", "--base", "base", "--experts", "expert_b", "--out", "out/again").expect(DONE)


@pytest.mark.parametrize("target", ["base", "expert_a"])
def test_an_input_is_never_overwritten(program, inputs, target):
    """--out on an input, even with --overwrite: the base must outlive its merge."""
    before = checkpoint.all_files(inputs / target)
    outcome = program.run("merge", "--base", "base", "--experts", "expert_a", "--out", target, "--overwrite")
    assert outcome.code in (USAGE, BAD_INPUT), outcome
    assert checkpoint.all_files(inputs / target) == before, "an input was replaced by the output"


@pytest.mark.parametrize("spelling", ["through_a_linked_parent", "through_a_link"])
def test_an_input_is_not_overwritten_under_another_name(program, inputs, spelling):
    """The last merge is the new base: it has a manifest of ours, and --out leads to it by another path."""
    program.run("merge", "--base", "base", "--experts", "expert_a", "--out", "out/last").expect(DONE)
    before = checkpoint.all_files(inputs / "out/last")
    if spelling == "through_a_link":
        (inputs / "alias").symlink_to(inputs / "out/last")
        target = "alias"
    else:
        (inputs / "alias").symlink_to(inputs / "out")
        target = "alias/last"
    outcome = program.run("merge", "--base", "out/last", "--experts", "expert_b", "--out", target, "--overwrite")
    outcome.expect(USAGE)
    assert "--out" in outcome.stderr
    assert checkpoint.all_files(inputs / "out/last") == before, "the base was replaced by the output"


def test_overwrite_leaves_foreign_directories_alone(program, inputs):
    """A manifest.json of somebody else's does not make a directory ours."""
    foreign = inputs / "out/web"
    foreign.mkdir(parents=True)
    (foreign / "manifest.json").write_text('{"name": "a web app"}')
    program.run("merge", "--base", "base", "--experts", "expert_a", "--out", "out/web", "--overwrite").expect(USAGE)
    assert [p.name for p in foreign.iterdir()] == ["manifest.json"]


# ------------------------------------------------------------------------------------- numbers that are none

def poison(root: Path, model: str, dtype: str = "F32", **values) -> None:
    """Puts values into the first elements of tensors."""
    for key, numbers in values.items():
        name = key.replace("_", ".", 1)
        tensor = checkpoint.read_model(root / model)[name].copy()
        tensor.reshape(-1)[3 : 3 + len(numbers)] = numbers
        respell(root, model, **{key: tensor})


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize("model", ["base", "expert_a", "expert_b"])
@pytest.mark.parametrize("numbers", [(NAN,), (INF, -INF)], ids=["nan", "inf"])
def test_nan_and_infinity_are_refused(program, inputs, numbers, model, ranks):
    """Counted by tensor: one line for each that has them."""
    poison(inputs, model, a_weight=numbers)
    outcome = check_refusal(program, Case([("a.weight", str(len(numbers)))], extra=list(FULL_READ)), ranks)
    assert "--nonfinite" in outcome.stderr, f"the way out is not named{outcome}"


def test_nan_in_two_tensors(program, inputs):
    poison(inputs, "expert_a", a_weight=(NAN, NAN), b_weight=(INF,))
    check_refusal(program, Case([("a.weight", "2"), ("b.weight", "1")], extra=list(FULL_READ)), None)


def test_overflow_of_the_output_dtype_is_refused(program, inputs):
    """70000 is finite in f32, and infinite in f16."""
    for model in ("base", "expert_a", "expert_b"):
        poison(inputs, model, a_weight=(70000.0,))
    case = Case([("a.weight", "1")], extra=[*FULL_READ, "--out-dtype", "f16"])
    check_refusal(program, case, None)


@pytest.mark.parametrize("ranks", [None, 2])
def test_nonfinite_allow(program, inputs, ranks):
    """Merged all the same, counted in the manifest; finite positions are the oracle's."""
    poison(inputs, "expert_a", a_weight=(NAN, NAN, INF))
    outcome = program.run("merge", "--base", "base", "--experts", "expert_a", "expert_b", "--out", "out/merged",
                          "--strategy", "avg", "--nonfinite", "allow", *FULL_READ, ranks=ranks)
    merge = program.merged(outcome)
    models = [checkpoint.read_model(inputs / m) for m in ("base", "expert_a", "expert_b")]
    expected = oracle.merge_model(models[0], models[1:], Options("avg"))["a.weight"].reshape(-1)
    got = merge.tensors()["a.weight"].reshape(-1)
    finite = np.isfinite(expected)
    assert (~finite).sum() == 3 and np.array_equal(np.isfinite(got), finite)
    assert np.array_equal(checkpoint.bits(expected)[finite], checkpoint.bits(got)[finite])
    entry = next(t for t in merge.manifest["tensors"] if t["name"] == "a.weight")
    counted = {source["expert"]: source["nonfinite"] for source in entry["experts"]}
    assert counted == {0: [2, 1], 1: [0, 0]}, f"[NaN, Inf] by expert in the manifest: {counted}"
