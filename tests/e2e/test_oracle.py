"""The oracle itself: known answers, and agreement with a second, element-by-element writing of the formulas."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

import checkpoint
import oracle
from oracle import Options

KNOWN_PHILOX = [  # Random123's kat_vectors: counter, key, output
    ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, (0xFFFFFFFF, 0xFFFFFFFF), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], (0xA4093822, 0x299F31D0),
     [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
]


@pytest.mark.parametrize("counter, key, output", KNOWN_PHILOX)
def test_philox_known_answers(counter, key, output):
    assert oracle.philox4x32(np.array([counter], np.uint32), key)[0].tolist() == output


def test_dare_draws_depend_on_seed_name_and_expert_only_through_index():
    draws = oracle.dare_draws(7, "größe", 1, 10)
    assert np.array_equal(draws, oracle.dare_draws(7, "größe", 1, 1000)[:10])
    for other in [(8, "größe", 1), (7, "grösse", 1), (7, "größe", 0)]:
        assert not np.array_equal(draws, oracle.dare_draws(*other, 10)), other


@pytest.mark.parametrize("text, chosen", [
    ("", []), ("0", [0]), ("0-3,5", [0, 1, 2, 3, 5]), ("9", [9]), ("x:2b02", [0, 1, 3, 5, 9]), ("0-9", range(10)),
])
def test_selection_strings(text, chosen):
    assert np.flatnonzero(oracle.parse_selection(text, 10)).tolist() == list(chosen)


@pytest.mark.parametrize("text", ["10", "3-10", "x:0004", "2-1"])
def test_selection_of_a_block_that_does_not_exist(text):
    with pytest.raises(AssertionError):
        oracle.parse_selection(text, 10)


@pytest.mark.parametrize("value, stored", [
    (0x3F808000, 0x3F80), (0x3F818000, 0x3F82), (0x3F808001, 0x3F81), (0x00008000, 0x0000), (0x00018000, 0x0002),
])
def test_bf16_rounds_to_nearest_even(value, stored):
    """Halfway cases, and subnormals, which must not be flushed."""
    number = np.array([value], np.uint32).view(np.float32)
    assert int(oracle.to_output(number, np.dtype(ml_dtypes.bfloat16)).view(np.uint16)[0]) == stored


# ------------------------------------------------------------------------ the formulas, one element at a time

def f32(value) -> np.float32:
    return np.float32(value)


def slow_threshold(delta, positions, density):
    ordered = sorted((abs(delta[i]) for i in positions), reverse=True)
    return ordered[max(1, math.floor(density * len(ordered))) - 1]


def slow_kept(delta, chosen, block, options):
    """Which positions the trim keeps."""
    positions = [i for i in range(len(delta)) if chosen[i // block]]
    if options.trim_scope == "block":
        groups = [[i for i in positions if i // block == b] for b in range(len(chosen)) if chosen[b]]
    else:
        groups = [positions] if positions else []
    kept = set()
    for group in groups:
        threshold = slow_threshold(delta, group, options.kept_share)
        kept |= {i for i in group if abs(delta[i]) >= threshold and delta[i] != 0}
    return kept


def slow_ties(i, deltas, kept, options):
    factors = [f32(w) for w in options.weights_of(len(deltas))]
    votes = {k: factors[k] * deltas[k][i] for k in range(len(deltas)) if i in kept[k]}
    elected = f32(0)
    for vote in votes.values():
        elected = elected + vote
    numerator, denominator, agreeing = f32(0), f32(0), 0
    for k, vote in votes.items():
        if (vote > 0) if elected >= 0 else (vote < 0):
            numerator, denominator, agreeing = numerator + vote, denominator + factors[k], agreeing + 1
    if not agreeing:
        return f32(0)
    return options.scale * (numerator / denominator if options.normalize else numerator)


def slow_linear(i, deltas, chosen, block, options, draws=None):
    weights = options.weights_of(len(deltas))
    total = f32(0)
    for k, delta in enumerate(deltas):
        if not chosen[k][i // block]:
            continue
        value = delta[i]
        if draws is not None:
            if int(draws[k][i]) >= math.floor(options.kept_share * 2**32):
                continue
            value = value / f32(options.kept_share)
        total = total + f32(weights[k] / sum(weights) if options.normalize else weights[k]) * value
    return options.scale * total


def slow_merge(name, base, experts, options, chosen):
    block, size = options.elements_per_block, base.size
    origin = base.reshape(-1).astype(np.float32)
    deltas = [[f32(f32(x) - o) for x, o in zip(e.reshape(-1).astype(np.float32), origin)] for e in experts]
    draws = kept = None
    if options.strategy == "dare":
        draws = [oracle.dare_draws(options.seed or 0, name, k, size) for k in range(len(experts))]
    if options.strategy == "ties":
        kept = [slow_kept(d, c, block, options) for d, c in zip(deltas, chosen)]
    result = base.reshape(-1).copy()
    for i in range(size):
        merged = (slow_ties(i, deltas, kept, options) if kept is not None
                  else slow_linear(i, deltas, chosen, block, options, draws))
        if merged != 0:
            result[i] = (origin[i] + merged).astype(base.dtype)
    return result.reshape(base.shape)


VARIANTS = [
    Options("avg"), Options("avg", weights=(0.3, 1.7, 0.5), lam=0.7),
    Options("avg", weights=(1, 2, 3), normalize=False),
    Options("ties"), Options("ties", density=0.2, weights=(1, 0.5, 2), lam=1.3), Options("ties", normalize=False),
    Options("ties", trim_scope="block", density=0.35), Options("ties", density=0.001), Options("ties", density=1.0),
    Options("dare"), Options("dare", density=0.9, seed=5, weights=(1, 2, 3)), Options("dare", density=1.0),
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: " ".join(o.arguments()))
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("full", [True, False], ids=["full", "budgeted"])
def test_against_the_formulas_element_by_element(options, dtype, full):
    options = Options(**{**options.__dict__, "block_size": 16})
    rng = np.random.default_rng(3)
    base = checkpoint.base_values(rng, "w", (10, 15), dtype)
    experts = [checkpoint.derive_tensor(rng, base, None, 0.01, 30) for _ in range(3)]
    blocks = oracle.block_count(base.size, 16)
    chosen = [np.ones(blocks, bool) if full else rng.random(blocks) < 0.5 for _ in experts]
    expected = slow_merge("w", base, experts, options, chosen)
    actual = oracle.merge_tensor("w", base, experts, options, None if full else chosen)
    assert (line := checkpoint.difference("w", expected, actual)) is None, line
    assert not np.array_equal(checkpoint.bits(base), checkpoint.bits(actual)), "the merge changed nothing"


def test_written_families_read_back_the_same(scratch):
    """What the tests write is what the official package reads."""
    made = checkpoint.make_family(scratch / "self", "BF16", shards=2)
    for model in [made.base, *made.experts]:
        checkpoint.assert_same_bits(model.tensors, checkpoint.read_model(model.path), model.name)


def test_families_have_what_the_tests_need(scratch):
    """Zeros, subnormals, equal magnitudes and unchanged blocks are really there, in every type."""
    for dtype in ("F32", "BF16", "F16"):
        made = checkpoint.make_family(scratch / f"needs-{dtype}", dtype)
        base, expert = made.base.tensors, made.experts[0].tensors
        tiny = base["model.tiny_numbers"].astype(np.float64)
        assert (tiny != 0).any() and (np.abs(tiny[tiny != 0]) < float(ml_dtypes.finfo(tiny.dtype).tiny
                if dtype == "F64" else ml_dtypes.finfo(base["model.tiny_numbers"].dtype).tiny)).any(), dtype
        assert not np.array_equal(tiny, expert["model.tiny_numbers"].astype(np.float64)), dtype
        name = "model.layers.0.mlp.up_proj.weight"
        delta = expert[name].astype(np.float32).reshape(-1) - base[name].astype(np.float32).reshape(-1)
        same = [not delta[oracle.block_slice(b, delta.size, 100)].any() for b in range(delta.size // 100)]
        assert any(same) and not all(same), f"{dtype}: unchanged blocks {sum(same)} of {len(same)}"
        assert np.unique(np.abs(delta)).size < delta.size, dtype
