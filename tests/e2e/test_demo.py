"""`mergepipe demo`: a seeded family in the Hugging Face layout that the official package opens and merge takes."""

from __future__ import annotations

import json

import numpy as np
import pytest

import checkpoint
from checkpoint import Family, Model
from program import USAGE


def demo(program, name: str = "family", *extra, shape="llama", size="tiny", experts=2, dtype="bf16", shards=1,
         seed=1) -> Family:
    program.run("demo", name, "--shape", shape, "--size", size, "--experts", experts, "--dtype", dtype,
                "--shards", shards, "--seed", seed, *extra).expect(0)
    models = {path.name: Model(path, checkpoint.read_model(path)) for path in (program.root / name).iterdir()}
    base = models.pop("base")
    return Family(base, [models[name] for name in sorted(models)])


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("shape", ["llama", "qwen3"])
def test_the_family_loads(program, shape, dtype):
    made = demo(program, shape=shape, dtype=dtype, experts=3, shards=2)
    assert len(made.experts) == 3
    for model in [made.base, *made.experts]:
        assert len(checkpoint.weight_files(model.path)) == 2, model.name
        index = json.loads((model.path / checkpoint.INDEX).read_text())
        assert set(index["weight_map"]) == set(model.tensors)
        config = json.loads((model.path / "config.json").read_text())
        assert config["model_type"] == shape and config["vocab_size"] > 0
        assert config.get("torch_dtype", config.get("dtype")) == {
            "bf16": "bfloat16", "f16": "float16", "f32": "float32"}[dtype]
        json.loads((model.path / "tokenizer.json").read_text())
        names = {checkpoint.NAMES[t.dtype] for t in model.tensors.values()}
        assert names == {dtype.upper()}, names
        assert "model.embed_tokens.weight" in model.tensors
        assert all(np.isfinite(t.astype(np.float32)).all() for t in model.tensors.values())


def test_experts_differ_and_share_blocks_with_the_base(program):
    """Deltas differ in size by layer; some tensors or rows are the base's own bits."""
    made = demo(program, dtype="f32")
    for expert in made.experts:
        assert {n: t.shape for n, t in expert.tensors.items()} == {n: t.shape for n, t in made.base.tensors.items()}
        deltas = {n: (expert.tensors[n] - t).reshape(len(t), -1) for n, t in made.base.tensors.items()}
        rows = np.concatenate([np.abs(d).max(axis=1) for d in deltas.values()])
        assert 0.01 < (rows == 0).mean() < 0.99, f"{expert.name}: {(rows == 0).mean():.2f} of rows unchanged"
        sizes = sorted(np.sqrt((d**2).mean()) for d in deltas.values() if d.any())
        assert sizes[-1] > 2 * sizes[0], f"{expert.name}: all deltas have the same size"
    assert any((made.experts[0].tensors[n] != made.experts[1].tensors[n]).any() for n in made.base.tensors)


def test_the_seed_decides_the_bytes(program):
    first, again, other = (demo(program, name, seed=seed) for name, seed in [("a", 7), ("b", 7), ("c", 8)])
    for left, right in zip([first.base, *first.experts], [again.base, *again.experts]):
        assert checkpoint.all_files(left.path) == checkpoint.all_files(right.path), "one seed, two families"
    for left, right in zip([first.base, *first.experts], [other.base, *other.experts]):
        differences = [checkpoint.difference(n, t, right.tensors[n]) for n, t in left.tensors.items()]
        assert any(differences), "two seeds, one family"


def test_shards_do_not_change_the_values(program):
    one, three = demo(program, "one", shards=1), demo(program, "three", shards=3)
    checkpoint.assert_same_bits(one.base.tensors, three.base.tensors)
    checkpoint.assert_same_bits(one.experts[1].tensors, three.experts[1].tensors)


@pytest.mark.parametrize("ranks", [None, 2])
def test_the_family_merges(program, ranks):
    """What the quick start does: demo, then merge on two ranks; the output opens."""
    made = demo(program, shards=2)
    merge = program.merge(made, ranks=ranks)
    assert set(merge.tensors()) == set(made.base.tensors)
    changed = [n for n, t in made.base.tensors.items() if checkpoint.difference(n, t, merge.tensors()[n])]
    assert changed, "the merge is the base"


@pytest.mark.parametrize("option, value", [("--shape", "lama"), ("--size", "huge"), ("--experts", "0"),
                                           ("--dtype", "i8"), ("--shards", "0")])
def test_bad_options(program, option, value):
    arguments = {"--shape": "llama", "--size": "tiny", "--experts": "1"} | {option: value}
    outcome = program.run("demo", "family", *[word for pair in arguments.items() for word in pair]).expect(USAGE)
    assert option in outcome.stderr, outcome
    assert not (program.root / "family").exists()


def test_an_existing_model_is_not_overwritten(program):
    made = demo(program)
    before = checkpoint.all_files(made.base.path)
    outcome = program.run("demo", "family", "--shape", "llama", "--size", "tiny", "--experts", "2", "--seed", "9")
    assert outcome.code == USAGE, outcome
    assert checkpoint.all_files(made.base.path) == before
