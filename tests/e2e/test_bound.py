"""The stated error: no output is farther from the full read's than its plan said before the merge."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

import checkpoint
import delta_family
import oracle
import selection_oracle as selection
from checkpoint import Family
from delta_family import Recipe
from oracle import Options
from program import FULL_READ, Merge, megabytes

SHAPES = {"model.embed_tokens.weight": (53, 67), "model.layers.0.weight": (71, 83), "model.layers.0.norm": (83,),
          "model.layers.1.weight": (71, 83), "model.scalar": (), "lm_head.weight": (53, 60)}


def budgeted(program, family: Family, options: Options, share: float, *extra, out="part", **how) -> Merge:
    budget = family.fingerprint_bytes() + family.compare_bytes() + int(share * family.merge_bytes())
    return program.merge(family, "--io-budget-mb", megabytes(budget), *extra, options=options, out=out, **how)


def check(full: Merge, part: Merge, family: Family) -> tuple[float, float]:
    """Realised and stated distance; the first is at most the second, and plan and manifest agree."""
    bound = part.plan["bound"]
    assert bound is not None and part.manifest["bound"] == bound
    assert all(math.isfinite(bound[key]) and bound[key] >= 0 for key in ("unread", "rounding", "total")), bound
    assert bound["total"] <= (bound["unread"] + bound["rounding"]) * (1 + 1e-12)
    realised = selection.distance(full.tensors(), part.tensors())
    assert realised <= bound["total"], f"{realised} is over the bound {bound}{part.outcome}"
    return realised, bound["total"]


# -------------------------------------------------------------------------------------- a property of all

def random_case(seed: int) -> tuple[Recipe, Options, list]:
    """A family, options, and what is asked of it: three times a share of the bytes and a --top-p."""
    rng = np.random.default_rng(seed)
    experts = int(rng.integers(1, 5))
    dtype = ["F32", "BF16", "F16"][seed % 3]
    recipe = Recipe(dtype, experts, seed=seed, shapes=SHAPES, run=int(rng.integers(20, 400)), shards=int(rng.integers(1, 3)),
                    expert_dtype=str(rng.choice([dtype, "F32", "BF16"])), scale=float(10 ** rng.uniform(-4, -0.5)),
                    spread=float(rng.uniform(0, 2)), frozen=float(rng.choice([0, 0.3])))
    normalize = bool(rng.random() < 0.6)
    weights = rng.uniform(0.1, 2, experts)
    if not normalize and experts > 1 and rng.random() < 0.5:
        weights[0] = -weights[0]
    strategy = ["avg", "dare"][seed // 3 % 2]
    options = Options(
        strategy, density=float(rng.uniform(0.2, 1)) if strategy == "dare" else None,
        weights=tuple(round(float(w), 3) for w in weights) if rng.random() < 0.7 else None,
        lam=float(rng.choice([1.0, 0.3, -0.7, 1.8])), seed=seed, normalize=normalize, block_size=int(rng.integers(50, 900)),
        out_dtype=[None, "f32", "f16", "bf16"][int(rng.integers(0, 4))])
    asked = [(float(rng.uniform(0.08, 0.95)), float(rng.choice([1.0, rng.uniform(0.05, 1)]))) for _ in range(3)]
    return recipe, options, asked


@pytest.mark.parametrize("seed", range(30))
def test_no_output_is_farther_than_its_bound(program, seed):
    """Random families, dtypes, weights, lambdas and budgets."""
    recipe, options, asked = random_case(seed)
    family = delta_family.make(program.root / "family", recipe)
    program.analyze(family, "--block-size", options.block_size)
    full = program.merge(family, *FULL_READ, options=options, out="full")
    for i, (share, top_p) in enumerate(asked):
        scoring = ["l2cos", "l2", "abs", "uniform"][(seed + i) % 4]
        part = budgeted(program, family, options, share, "--top-p", top_p, "--scoring", scoring, out=f"part{i}")
        check(full, part, family)


@pytest.mark.parametrize("strategy", ["avg", "dare"])
@pytest.mark.parametrize("lam, weights, normalize", [(1.0, None, True), (-2.0, (0.5, 1.5, 1.0), True),
                                                     (0.7, (1.0, -1.0, 0.25), False)])
def test_the_unread_part_is_the_norm_of_what_is_left_out(program, strategy, lam, weights, normalize):
    """Block by block, the norms of c_k D_k of the unread experts: as NumPy has them."""
    family = delta_family.make(program.root / "family", Recipe(experts=3, seed=41, shapes=SHAPES))
    options = Options(strategy, lam=lam, weights=weights, normalize=normalize, block_size=200)
    program.analyze(family, "--block-size", 200)
    for share in (0.2, 0.7):
        budget = family.fingerprint_bytes() + family.compare_bytes() + int(share * family.merge_bytes())
        plan = program.plan(family, "--io-budget-mb", megabytes(budget), "--top-p", "0.9", options=options)
        left_out = selection.unread_bound(plan, family)
        if strategy == "avg":
            assert plan["bound"]["unread"] == pytest.approx(left_out, rel=1e-4)
        else:  # each draw may keep an element or not; all kept is the worst
            assert 0 < plan["bound"]["unread"] <= left_out * (1 + 1e-4)


@pytest.mark.parametrize("ranks", [1, 4])
def test_the_bound_is_the_same_for_any_number_of_ranks(program, ranks):
    family = delta_family.make(program.root / "family", Recipe("BF16", experts=3, seed=42, shapes=SHAPES))
    options = Options("avg", block_size=200)
    program.analyze(family, "--block-size", 200, ranks=ranks)
    full = program.merge(family, *FULL_READ, options=options, out="full", ranks=ranks)
    part = budgeted(program, family, options, 0.3, "--top-p", "0.8", ranks=ranks)
    check(full, part, family)
    program.analyze(family, "--block-size", 200, "--db", "plain.sqlite")
    plain = budgeted(program, family, options, 0.3, "--top-p", "0.8", "--db", "plain.sqlite", out="plain")
    assert plain.plan["bound"] == part.plan["bound"] and plain.plan["plan_hash"] == part.plan["plan_hash"]


# ----------------------------------------------------------------------------------------------- tightness

def complementary(root, experts: int = 2) -> Family:
    """Block b matters in all experts but number b % K: a budget that takes what matters leaves one out of each."""
    recipe = Recipe(seed=43, experts=experts, integers=False, shapes={f"layer.{i}": (60, 100) for i in range(6)})
    rng = np.random.default_rng(recipe.seed)
    base = delta_family.make_base(rng, recipe)
    tensors = []
    for k in range(experts):
        expert = {}
        for name, origin in base.items():
            size = np.where(np.arange(60) % experts == k, 0.001, 0.1)[:, None]  # a row is a block
            expert[name] = (origin + rng.normal(size=origin.shape) * size).astype(np.float32)
        tensors.append(expert)
    return delta_family.write(root, recipe, base, tensors)


@pytest.mark.parametrize("experts", [2, 3])
@pytest.mark.parametrize("strategy", ["avg", "dare"])
def test_the_bound_is_tight_where_each_block_lacks_one_expert(program, strategy, experts):
    """Nothing to add up inside a block: the bound is the distance, but for dare's draws and the rounding."""
    family = complementary(program.root / "family", experts)
    options = Options(strategy, block_size=100)
    program.analyze(family, "--block-size", 100)
    full = program.merge(family, *FULL_READ, options=options, out="full")
    part = budgeted(program, family, options, (experts - 1) / experts + 1e-6, "--top-p", "1", "--scoring", "l2")
    chosen = oracle.selections_of(part.plan)
    for name, sets in chosen.items():
        assert (np.sum(sets, axis=0) == experts - 1).all(), f"{name}: not one expert is left out of each block: {sets}"
    realised, stated = check(full, part, family)
    assert stated <= 2 * realised, f"bound {stated}, realised {realised}"
    if strategy == "avg":
        assert stated <= 1.01 * realised, f"bound {stated}, realised {realised}"


# ------------------------------------------------------------------------------------- where no bound holds

@pytest.fixture(scope="module")
def made(scratch) -> Family:
    return delta_family.make(scratch / "bound", Recipe(experts=2, seed=44, shapes=SHAPES))


@pytest.mark.parametrize("trim_scope", ["tensor", "block"])
def test_ties_has_no_bound(program, made, trim_scope):
    program.analyze(made, "--block-size", 200)
    merge = budgeted(program, made, Options("ties", block_size=200, trim_scope=trim_scope), 0.4)
    assert merge.plan["bound"] is None and merge.manifest["bound"] is None


@pytest.mark.parametrize("strategy", ["avg", "dare"])
def test_a_probed_catalog_has_no_bound(program, made, strategy):
    merge = budgeted(program, made, Options(strategy, block_size=200), 0.6)
    assert [s["kind"] for s in merge.plan["statistics"]] == ["probe", "probe"]
    assert merge.plan["bound"] is None and merge.manifest["bound"] is None


def test_one_expert_that_is_not_analyzed_takes_the_bound_away(program, made):
    program.analyze(Family(made.base, made.experts[:1]), "--block-size", 200)
    merge = budgeted(program, made, Options("avg", block_size=200), 0.6)
    assert merge.plan["bound"] is None


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("strategy", ["avg", "dare"])
def test_the_full_read_is_at_distance_zero(program, made, strategy, analyzed):
    if analyzed:
        program.analyze(made, "--block-size", 200)
    merge = program.merge(made, *FULL_READ, options=Options(strategy, block_size=200))
    assert merge.plan["bound"] == {"unread": 0, "rounding": 0, "total": 0}


BOUND_LINE = r"full-read merge: at most \d[\d.e+-]* in L2"


@pytest.mark.parametrize("way", ["text", "json"])
def test_the_bound_is_told_before_the_merge(program, made, way):
    program.analyze(made, "--block-size", 200)
    budget = made.fingerprint_bytes() + made.compare_bytes() + made.merge_bytes() // 3
    arguments = ("--base", made.base.path, "--experts", *made.paths(), "--io-budget-mb", megabytes(budget),
                 "--strategy", "avg", "--block-size", 200)
    outcome = program.run("plan", *arguments, *(["--json"] if way == "json" else [])).expect(0)
    if way == "json":
        assert json.loads(outcome.stdout)["bound"]["total"] > 0
    else:
        assert re.search(BOUND_LINE, outcome.stdout), outcome
    dry = program.run("merge", "--dry-run", "--out", program.outputs / "none", *arguments).expect(0)
    assert re.search(BOUND_LINE, dry.stdout), dry


# ------------------------------------------------------------------------------------- what diff measures

@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_diff_measures_what_numpy_does(program, dtype):
    """Total and by tensor: L2, relative to the first, the largest difference, the share of equal elements."""
    family = delta_family.make(program.root / "family", Recipe(dtype, experts=2, seed=45, shapes=SHAPES, scale=0.03))
    options = Options("avg", block_size=200)
    program.analyze(family, "--block-size", 200)
    full = program.merge(family, *FULL_READ, options=options, out="full")
    part = budgeted(program, family, options, 0.3, "--top-p", "0.7")
    said = json.loads(program.run("diff", "--json", full.out, part.out).expect(0).stdout)
    a, b = full.tensors(), part.tensors()
    assert said["total"]["l2"] == pytest.approx(selection.distance(a, b), rel=1e-9)
    floats = {name: t for name, t in a.items() if oracle.is_float(t.dtype)}  # integers are equal or not, and no more
    length = selection.distance(floats, {name: np.zeros_like(t) for name, t in floats.items()})
    assert said["total"]["relative"] == pytest.approx(selection.distance(a, b) / length, rel=1e-9)
    assert said["total"]["l2"] <= part.plan["bound"]["total"]
    assert {t["name"] for t in said["tensors"]} == set(a)
    for row in said["tensors"]:
        x, y = a[row["name"]], b[row["name"]]
        assert row["l2"] == pytest.approx(selection.distance({"": x}, {"": y}), rel=1e-9, abs=1e-30)
        gap = np.abs(x.astype(np.float64) - y.astype(np.float64))
        assert row["max_abs"] == pytest.approx(float(gap.max(initial=0)), rel=1e-6)
        equal = float((checkpoint.bits(x) == checkpoint.bits(y)).mean()) if x.size else 1.0
        assert row["equal_share"] == pytest.approx(equal, rel=1e-9)


def test_less_read_is_a_larger_bound(program, made):
    program.analyze(made, "--block-size", 200)
    totals = []
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        budget = made.fingerprint_bytes() + made.compare_bytes() + int(share * made.merge_bytes())
        plan = program.plan(made, "--io-budget-mb", megabytes(budget), "--top-p", "1", "--scoring", "l2",
                            options=Options("avg", block_size=200))
        totals.append(plan["bound"]["total"])
    assert totals == sorted(totals, reverse=True) and totals[0] > totals[-1] > 0, totals
