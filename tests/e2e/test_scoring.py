"""What a plan selects is what the scores say: compared with an independent selection, pair by pair."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import delta_family
import oracle
import selection_oracle as selection
from checkpoint import Family
from delta_family import Recipe
from oracle import Options
from program import FULL_READ, megabytes

BLOCK = 100


class Analyzed:
    """Families, each with a program whose catalog has their exact statistics."""

    def __init__(self, scratch, new_program):
        self.scratch, self.new_program = scratch, new_program
        self.made: dict = {}

    def get(self, recipe: Recipe, block_size: int):
        key = (repr(recipe), block_size)
        if key not in self.made:
            program = self.new_program("scoring")
            family = delta_family.make(program.root / "family", recipe)
            program.analyze(family, "--block-size", block_size)
            self.made[key] = program, family
        return self.made[key]


@pytest.fixture(scope="module")
def analyzed(scratch, new_program) -> Analyzed:
    return Analyzed(scratch, new_program)


def budget_of(family: Family, share: float) -> int:
    return family.fingerprint_bytes() + family.compare_bytes() + int(share * family.merge_bytes())


def plan_of(program, family: Family, options: Options, scoring: str, share: float | None, top_p: float, *extra) -> dict:
    budget = ("--no-budget",) if share is None else ("--io-budget-mb", megabytes(budget_of(family, share)))
    return program.plan(family, "--scoring", scoring, "--top-p", top_p, *budget, *extra, options=options)


def scored(plan: dict, family: Family, score) -> list[selection.Block]:
    blocks = selection.blocks_of(plan, family)
    for block in blocks:
        for pair in block.pairs:
            pair.score = score(pair)
    return blocks


def check_selection(plan: dict, family: Family, scoring: str) -> selection.Choice:
    """The plan's access set, objective and bound are the oracle's; the oracle's own input is unambiguous."""
    blocks = scored(plan, family, selection.SCORES[scoring])
    assert selection.separated(blocks), "two pairs of this family are too close to be ranked: change its seed"
    choice = selection.select(selection.problem_of(plan), blocks)
    stated = selection.stated_keys(plan)
    assert stated == choice.keys, f"only in the plan: {sorted(stated - choice.keys)[:5]}, " \
                                  f"only in the oracle: {sorted(choice.keys - stated)[:5]}"
    assert plan["planned"]["merge_bytes"] == choice.bytes
    assert plan["objective"] == pytest.approx(choice.objective, rel=1e-9)
    assert plan["objective_bound"] == pytest.approx(choice.bound, rel=1e-9)
    assert plan["objective_ratio"] == pytest.approx(plan["objective"] / plan["objective_bound"], rel=1e-12)
    assert plan["objective_ratio"] <= 1 + 1e-12
    return choice


# ----------------------------------------------------------------------------------- the greedy selection

# Without a budget; one that cuts; one with --top-p; both. Shares of the bytes that a full read merges.
ASKED = [(None, 0.3), (0.07, 1), (0.3, 1), (0.3, 0.35), (0.6, 0.5), (0.9, 1)]
RECIPES = {
    "f32": Recipe(), "bf16": Recipe("BF16", seed=2, scale=0.03), "three-f32": Recipe(experts=3, seed=3),
    "f32-experts-of-bf16": Recipe("BF16", expert_dtype="F32", seed=4, frozen_tensors={0: ("lm_head.weight",)}),
    "shards": Recipe(experts=3, shards=3, seed=5),
}


@pytest.mark.parametrize("block_size", [BLOCK, 333, 4096])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("scoring", ["l2", "abs"])
def test_the_selection_is_the_greedy_one(analyzed, scoring, recipe, block_size):
    program, family = analyzed.get(RECIPES[recipe], block_size)
    for share, top_p in ASKED:
        plan = plan_of(program, family, Options("avg", block_size=block_size), scoring, share, top_p)
        assert [s["kind"] for s in plan["statistics"]] == ["exact"] * len(family.experts)
        assert plan["planned"]["probe_bytes"] == 0
        choice = check_selection(plan, family, scoring)
        assert choice.keys, "nothing was selected: the case shows nothing"


@pytest.mark.parametrize("resident", [0.001, 0.01, 0.05])
def test_what_is_read_again_is_charged_again(analyzed, resident):
    """ties with tensors over --resident-mb: three passes, and a pair that makes a tensor outgrow it pays for all."""
    program, family = analyzed.get(RECIPES["three-f32"], BLOCK)
    reads = set()
    for share in (0.2, 0.8, 1.7):
        plan = plan_of(program, family, Options("ties", block_size=BLOCK), "l2", share, 1, "--resident-mb", resident)
        check_selection(plan, family, "l2")
        reads |= {t["reads"] for t in plan["tensors"] if any(t["selected"])}
    assert reads >= {3}, reads


def test_pairs_of_the_same_score_are_taken_in_order(analyzed):
    """Experts of the same values: every score is there twice; the earlier tensor, block, expert goes first."""
    program, family = analyzed.get(Recipe(experts=1, seed=6), BLOCK)
    twins = delta_family.write(program.root / "twins", Recipe(), family.base.tensors,
                               [family.experts[0].tensors, family.experts[0].tensors])
    catalog = "--db", "twins.sqlite"
    program.analyze(twins, "--block-size", BLOCK, *catalog)
    for scoring, share in itertools.product(("l2", "abs"), (0.2, 0.501, 0.7)):
        plan = plan_of(program, twins, Options("avg", block_size=BLOCK), scoring, share, 1, *catalog)
        check_selection(plan, twins, scoring)


def test_blocks_known_equal_are_listed_and_never_selected(analyzed):
    recipe = Recipe(seed=7, frozen=0.3, frozen_tensors={1: ("model.layers.1.mlp.up_proj.weight", "model.scalar")})
    program, family = analyzed.get(recipe, BLOCK)
    plan = plan_of(program, family, Options("avg", block_size=BLOCK), "l2", 0.9, 1)
    expected = selection.equal_sets(plan, family)
    stated = {name: [np.flatnonzero(s).tolist() for s in sets] for name, sets in oracle.equal_of(plan).items()}
    assert stated == expected
    assert any(any(sets) for sets in expected.values())
    chosen = oracle.selections_of(plan)
    for name, sets in oracle.equal_of(plan).items():
        for same, read in zip(sets, chosen[name]):
            assert not (same & read).any(), f"{name}: a block is equal to the base's and read"


def test_energy_is_the_sum_of_squares(analyzed):
    """By tensor and expert: [of all its blocks, of those that are read]."""
    program, family = analyzed.get(RECIPES["three-f32"], 333)
    plan = plan_of(program, family, Options("avg", block_size=333), "l2", 0.4, 1)
    read = selection.stated_keys(plan)
    all_pairs = [pair for block in selection.blocks_of(plan, family) for pair in block.pairs]
    for t, entry in enumerate(plan["tensors"]):
        if entry["rule"] != "merge":
            continue
        pairs = [pair for pair in all_pairs if pair.tensor == t]
        for k in range(len(family.experts)):
            mine = [p for p in pairs if p.expert == k]
            total = math.fsum(p.statistics.sum_squares for p in mine)
            selected = math.fsum(p.statistics.sum_squares for p in mine if p.key in read)
            assert entry["energy"][k] == pytest.approx([total, selected], rel=1e-9)


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_merge_executes_the_selection(analyzed, ranks):
    """On several ranks too: the output is what the oracle makes of the access set that it would choose itself."""
    program, family = analyzed.get(RECIPES["bf16"], BLOCK)
    options = Options("ties", block_size=BLOCK)
    merge = program.merge(family, "--scoring", "l2", "--io-budget-mb", megabytes(budget_of(family, 0.4)),
                          "--top-p", "0.8", options=options, ranks=ranks, out=f"merged{ranks}")
    check_selection(merge.plan, family, "l2")
    expected = oracle.merge_model(family.base.tensors, family.expert_tensors(), options, merge.plan)
    oracle_bits = {name: tensor.tobytes() for name, tensor in expected.items()}
    assert {name: tensor.tobytes() for name, tensor in merge.tensors().items()} == oracle_bits


# --------------------------------------------------------------------------------------------- brute force

def best_objective(pairs: list[selection.Pair], capacity: float) -> float:
    best = 0.0
    for bits in range(1 << len(pairs)):
        chosen = [pair for i, pair in enumerate(pairs) if bits >> i & 1]
        if sum(pair.bytes for pair in chosen) <= capacity:
            best = max(best, math.fsum(pair.score for pair in chosen))
    return best


TINY = {"a": (7, 9), "b": (20,), "c": (3, 15)}


@pytest.mark.parametrize("seed", range(12))
def test_the_greedy_is_within_one_pair_of_the_best(program, seed):
    """All subsets of some pairs of unequal sizes: the objective lacks at most the largest single score."""
    rng = np.random.default_rng(seed)
    block = int(rng.integers(22, 40))
    family = delta_family.make(program.root / "tiny", Recipe(seed=seed, shapes=TINY, run=10, frozen=0, integers=False))
    program.analyze(family, "--block-size", block)
    scoring = ["l2", "abs"][seed % 2]
    for share in (0.35, 0.6, 0.85):
        plan = plan_of(program, family, Options("avg", block_size=block), scoring, share, 1)
        pairs = [pair for b in scored(plan, family, selection.SCORES[scoring]) for pair in b.pairs]
        assert len(pairs) <= 16
        best = best_objective(pairs, selection.problem_of(plan).left)
        assert plan["objective"] <= best * (1 + 1e-12) <= plan["objective_bound"] * (1 + 1e-9)
        assert plan["objective"] >= best - max(pair.score for pair in pairs)


# -------------------------------------------------------------------------------------------------- l2cos

def test_l2cos_is_the_default(analyzed):
    program, family = analyzed.get(RECIPES["f32"], BLOCK)
    budget = "--io-budget-mb", megabytes(budget_of(family, 0.3))
    options = Options("avg", block_size=BLOCK)
    left = program.plan(family, *budget, options=options)
    stated = program.plan(family, *budget, "--scoring", "l2cos", options=options)
    assert left["options"]["scoring"] == "l2cos" and left["plan_hash"] == stated["plan_hash"]


def test_l2cos_of_one_expert_is_l2(analyzed):
    """A delta points where it points: the cosine with itself is 1."""
    program, family = analyzed.get(Recipe(experts=1, seed=8), BLOCK)
    for share, top_p in ASKED:
        options = Options("avg", block_size=BLOCK)
        l2 = plan_of(program, family, options, "l2", share, top_p)
        l2cos = plan_of(program, family, options, "l2cos", share, top_p)
        assert selection.stated_keys(l2cos) == selection.stated_keys(l2)
        assert l2cos["objective"] == pytest.approx(l2["objective"], rel=1e-9)


def crowd(program, weights=None) -> tuple[Family, Options]:
    """Experts a and b with the same delta, c with one as large that has nothing to do with it."""
    recipe = Recipe(experts=2, seed=9, spread=0, frozen=0, run=1000, integers=False,
                    shapes={f"layer.{i}.weight": (50, 100) for i in range(24)})
    pair = delta_family.make(program.root / "pair", recipe)
    a, c = pair.experts
    family = delta_family.write(program.root / "crowd", recipe, pair.base.tensors, [a.tensors, a.tensors, c.tensors])
    return family, Options("avg", block_size=1000, weights=weights)


def taken_by_expert(plan: dict) -> list[int]:
    keys = selection.stated_keys(plan)
    return [sum(1 for _, _, k in keys if k == expert) for expert in range(len(plan["experts"]))]


def test_l2cos_prefers_experts_that_agree(program):
    """Cosines with the sum of deltas are 2/sqrt(5) and 1/sqrt(5) here. Sketches estimate them, so some blocks go
    the other way, but few."""
    family, options = crowd(program)
    program.analyze(family, "--block-size", 1000)
    plan = plan_of(program, family, options, "l2cos", 2 / 3, 1)
    a, b, c = taken_by_expert(plan)
    assert 239 <= a + b + c <= 240 and abs(a - b) <= 1, "equal deltas have equal scores"
    assert c <= 30, f"a and b agree, and yet of 120 blocks each the plan takes {a}, {b} and {c}"
    plain = plan_of(program, family, options, "l2", 2 / 3, 1)
    assert taken_by_expert(plain)[2] > 50, "without the cosine all are alike"


def test_the_cosine_is_with_the_weighted_sum(program):
    """With weight 10, c is nearly the whole sum, and a and b are across it."""
    family, options = crowd(program, weights=(1.0, 1.0, 10.0))
    program.analyze(family, "--block-size", 1000)
    a, b, c = taken_by_expert(plan_of(program, family, options, "l2cos", 1 / 3, 1))
    assert c >= 105, f"c has the weight, and yet of 120 blocks each the plan takes {a}, {b} and {c}"


@pytest.mark.parametrize("recipe", ["three-f32", "bf16"])
def test_l2cos_takes_no_more_than_the_energy(analyzed, recipe):
    """(1 + cos) / 2 is in [0, 1], and the plan's objective within its bound."""
    program, family = analyzed.get(RECIPES[recipe], BLOCK)
    for share, top_p in ASKED:
        plan = plan_of(program, family, Options("avg", block_size=BLOCK), "l2cos", share, top_p)
        energy = math.fsum(e[1] for t in plan["tensors"] if t["rule"] == "merge" for e in t["energy"])
        assert 0 < plan["objective"] <= energy * (1 + 1e-9)
        assert plan["objective"] <= plan["objective_bound"] * (1 + 1e-12)


# ------------------------------------------------------------------------------------ when scores are needed

def test_uniform_does_not_look_at_the_data(program):
    """Two families of the same shapes, another seed: the same access set, and nothing is probed."""
    plans = []
    for seed in (1, 2):
        family = delta_family.make(program.root / f"family{seed}", Recipe(seed=seed))
        plans.append(plan_of(program, family, Options("avg", block_size=BLOCK), "uniform", 0.4, 0.6,
                             "--db", f"{seed}.sqlite"))
    assert selection.stated_keys(plans[0]) == selection.stated_keys(plans[1])
    for plan in plans:
        assert plan["planned"]["probe_bytes"] == 0 and plan["probe_stride"] == 0
        assert [s["kind"] for s in plan["statistics"]] == ["none", "none"]


@pytest.mark.parametrize("enough", [("--no-budget",), ("--io-budget-mb", "100")])
def test_nothing_is_probed_when_everything_fits(program, enough):
    family = delta_family.make(program.root / "family", Recipe("BF16", frozen=0))
    plan = program.plan(family, *enough, "--top-p", "1", options=Options("ties", block_size=BLOCK))
    assert plan["planned"]["probe_bytes"] == 0 and plan["planned"]["merge_bytes"] == family.merge_bytes()
    assert [s["kind"] for s in plan["statistics"]] == ["none", "none"]
    assert not any(any(t["equal"]) for t in plan["tensors"]), "nothing is known, and blocks are called equal"


# -------------------------------------------------------------------------------------------------- probes

PROBED = Recipe(experts=2, seed=11, run=5000, frozen=0.1, integers=False, shapes={  # blocks larger than a probe
    "embed": (700, 100), "layers.0.w": (500, 301), "layers.1.w": (500, 303), "norm": (100,), "head": (700, 101)})


def probed_blocks(plan: dict, family: Family) -> list[selection.Block]:
    blocks = selection.blocks_of(plan, family, sampled=True)
    selection.carry_probes(blocks, plan["probe_stride"])
    for block in blocks:
        for pair in block.pairs:
            pair.score = selection.SCORES[plan["options"]["scoring"]](pair)
    return blocks


@pytest.mark.parametrize("dtype, expert_dtype", [("F32", None), ("BF16", None), ("BF16", "F32")])
@pytest.mark.parametrize("share", [0.12, 0.3, 0.6, None])
def test_the_probe_is_an_eighth_of_the_budget(program, share, dtype, expert_dtype):
    """The smallest stride that keeps to it, and exactly the samples' bytes."""
    recipe = Recipe(**{**PROBED.__dict__, "dtype": dtype, "expert_dtype": expert_dtype})
    family = delta_family.make(program.root / "family", recipe)
    plan = plan_of(program, family, Options("avg", block_size=20000), "l2", share, 0.5)
    blocks = selection.blocks_of(plan, family, sampled=True)
    assert plan["probe_stride"] == selection.probe_stride(plan, blocks)
    assert plan["planned"]["probe_bytes"] == selection.probe_bytes(plan, blocks, plan["probe_stride"])
    assert [s["kind"] for s in plan["statistics"]] == ["probe", "probe"]
    assert not any(any(t["equal"]) for t in plan["tensors"]), "a sample cannot show that a block is equal"
    assert plan["planned"]["total_bytes"] == sum(
        plan["planned"][f"{part}_bytes"] for part in ("fingerprint", "probe", "compare", "merge"))
    if share is not None:
        assert plan["planned"]["total_bytes"] <= plan["options"]["budget_bytes"]


@pytest.mark.parametrize("scoring", ["l2", "abs"])
def test_a_probe_of_every_block_selects_by_the_samples(program, scoring):
    """16 KiB from the middle of each block stand for it."""
    family = delta_family.make(program.root / "family", Recipe(**{**PROBED.__dict__, "frozen": 0}))
    plan = plan_of(program, family, Options("avg", block_size=20000), scoring, None, 0.4)
    assert plan["probe_stride"] == 1
    blocks = probed_blocks(plan, family)
    choice = selection.select(selection.problem_of(plan), blocks, exact=False)
    assert selection.stated_keys(plan) == choice.keys
    assert plan["objective"] == pytest.approx(choice.objective, rel=1e-9)


def test_blocks_between_probes_take_the_last_ones_value(program):
    """Whatever the order among equals: the objective is the sum of the carried scores of what is selected."""
    family = delta_family.make(program.root / "family", PROBED)
    plan = plan_of(program, family, Options("avg", block_size=10000), "l2", 0.4, 1)
    assert plan["probe_stride"] > 1, "the case shows nothing"
    blocks = probed_blocks(plan, family)
    read = selection.stated_keys(plan)
    carried = math.fsum(pair.score for block in blocks for pair in block.pairs if pair.key in read)
    assert plan["objective"] == pytest.approx(carried, rel=1e-9)
    choice = selection.select(selection.problem_of(plan), blocks, exact=False)
    assert plan["objective_bound"] == pytest.approx(choice.bound, rel=1e-9)
    assert plan["objective"] >= choice.bound - max(p.score for b in blocks for p in b.pairs)


def test_exact_statistics_are_not_probed(program):
    """A catalog that knows one expert of two: the other is probed, the plan says which is which."""
    family = delta_family.make(program.root / "family", PROBED)
    program.analyze(Family(family.base, family.experts[:1]), "--block-size", 20000)
    plan = plan_of(program, family, Options("avg", block_size=20000), "l2", 0.5, 1)
    assert [s["kind"] for s in plan["statistics"]] == ["exact", "probe"]
    assert plan["bound"] is None
    for t in plan["tensors"]:
        assert t["equal"][1] == ""


def test_statistics_are_part_of_the_plan(program):
    """Another knowledge, another plan; the same knowledge got in another way, the same."""
    family = delta_family.make(program.root / "family", PROBED)
    budget = "--io-budget-mb", megabytes(budget_of(family, 0.5))
    options = Options("avg", block_size=20000)
    cold = program.plan(family, *budget, options=options)
    warm = program.plan(family, *budget, options=options)
    assert warm["plan_hash"] == cold["plan_hash"]
    program.analyze(family, "--block-size", 20000)
    exact = program.plan(family, *budget, options=options)
    assert exact["plan_hash"] != cold["plan_hash"]
    hashes = [s["hash"] for plan in (cold, exact) for s in plan["statistics"]]
    assert len(set(hashes)) == 4, "each expert and each kind has its own hash"
    none = program.plan(family, *FULL_READ, options=options, env={"MERGEPIPE_DB": "other.sqlite"})
    assert len({s["hash"] for s in none["statistics"]}) == 1


# --------------------------------------------------------------------------------------------- the oracle

def test_the_oracles_own_selection():
    """A knapsack small enough to work out by hand."""
    def pair(tensor, block, expert, size, score):
        return selection.Pair(tensor, block, expert, size, size, tensor * 10 + block,
                              selection.Statistics(1, 1, 1, size), score)

    blocks = [selection.Block(0, 0, 0, 4, slice(0, 4), [pair(0, 0, 0, 4, 8.0), pair(0, 0, 1, 4, 4.0)]),
              selection.Block(0, 1, 1, 2, slice(4, 6), [pair(0, 1, 0, 2, 4.0), pair(0, 1, 1, 2, 1.0)])]
    choice = selection.select(selection.Problem(1.0, 9, 10**9, 0), blocks)
    assert choice.keys == {(0, 0, 0), (0, 1, 0), (0, 1, 1)}  # ratios 2, 2, 1, 0.5: 4 + 2, then 4 does not fit, 2 does
    assert choice.objective == 13 and choice.bound == 8 + 4 + 3 / 4 * 4 and choice.bytes == 8
    assert selection.select(selection.Problem(0.5, 9, 10**9, 0), blocks).keys == {(0, 0, 0), (0, 0, 1)}
    thrice = selection.select(selection.Problem(1.0, 17, 5, 2), blocks)  # 4 once; with 2 more, 18: over the budget
    assert thrice.keys == {(0, 0, 0)} and thrice.bytes == 4
    assert selection.touchable(0.07, 100) == 7 and selection.touchable(0.35, 3) == 2
    assert selection.sample_of(20001, 2) == slice(5904, 14096) and selection.sample_of(10, 4) == slice(0, 10)


# ---------------------------------------------------------------------------------------------- the script

def test_the_script_that_compares_scorings(binary, scratch):
    """scripts/compare_scoring.sh on a small family: a table, and l2 and l2cos below uniform everywhere."""
    script = Path(__file__).resolve().parents[2] / "scripts" / "compare_scoring.sh"
    done = subprocess.run([script, "--quick", scratch / "compare"], capture_output=True, text=True, timeout=600,
                          stdin=subprocess.DEVNULL, env=os.environ | {"MERGEPIPE_BIN": binary})
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ") and "%" in line]
    assert len(rows) == 6, done.stdout
