"""The output equals the NumPy oracle bit by bit: each strategy and dtype, the full read and budgeted plans."""

from __future__ import annotations

import json

import numpy as np
import pytest

import checkpoint
import oracle
from checkpoint import ODD_BLOCK
from oracle import Options
from program import FULL_READ, megabytes

STRATEGIES = {
    "avg": Options("avg", block_size=ODD_BLOCK),
    "ties-tensor": Options("ties", block_size=ODD_BLOCK),
    "ties-block": Options("ties", trim_scope="block", block_size=ODD_BLOCK),
    "dare": Options("dare", block_size=ODD_BLOCK),
}
DTYPES = ["F32", "BF16", "F16"]


def varied(strategy: str, **changes) -> Options:
    return Options(**{**STRATEGIES[strategy].__dict__, **changes})


def check(merge, family, options: Options) -> None:
    """The published tensors are what the oracle makes of the plan's access set."""
    expected = oracle.merge_model(family.base.tensors, family.expert_tensors(), options, merge.plan)
    checkpoint.assert_same_bits(expected, merge.tensors(), " ".join(merge.outcome.command[4:]))


def check_full(merge, family, options: Options) -> None:
    """As check, but against everything, whatever the plan says."""
    expected = oracle.merge_model(family.base.tensors, family.expert_tensors(), options)
    checkpoint.assert_same_bits(expected, merge.tensors(), " ".join(merge.outcome.command[4:]))
    assert not all(np.array_equal(checkpoint.bits(expected[n]), checkpoint.bits(t))
                   for n, t in family.base.tensors.items()), "the family does not exercise the merge"


def budget(family, share: float, reads: int = 1) -> str:
    """A budget that pays for the fingerprints and the integer tensors, and for a share of the merge."""
    fixed = family.fingerprint_bytes() + family.compare_bytes()
    return megabytes(fixed + int(share * reads * family.merge_bytes()))


# -------------------------------------------------------------------------------------------- the full read

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_full_read(program, family, strategy, dtype):
    """--no-budget --top-p 1 is the full-read merge."""
    made, options = family(dtype), STRATEGIES[strategy]
    check_full(program.merge(made, *FULL_READ, options=options), made, options)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_full_read_of_two_shards_on_two_ranks(program, family, strategy):
    """The same with tensors that ranks share, three experts, and experts cut into other shards than the base."""
    made, options = family("BF16", shards=2, experts=3), STRATEGIES[strategy]
    check_full(program.merge(made, *FULL_READ, options=options, ranks=2), made, options)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_expert(program, family, strategy):
    made, options = family("F16", experts=1), STRATEGIES[strategy]
    check_full(program.merge(made, *FULL_READ, options=options), made, options)


@pytest.mark.parametrize("options", [Options(), Options("avg"), Options("dare")], ids=lambda o: o.strategy)
def test_default_block_size(program, family, options):
    """Tensors smaller than one block of 640,000 elements."""
    made = family("BF16")
    check_full(program.merge(made, *FULL_READ, options=options), made, options)


@pytest.mark.parametrize("block_size", [1, 7, 128])
def test_other_block_sizes(program, family, block_size):
    """Block scope depends on the cut into blocks; the smallest block is one element."""
    shapes = {"a.weight": (23, 9), "b.weight": (128,), "c": ()}
    made = checkpoint.make_family(program.root / "small", "BF16", shapes=shapes)
    options = varied("ties-block", block_size=block_size)
    check_full(program.merge(made, *FULL_READ, options=options), made, options)


# ---------------------------------------------------------------------------------------------- the options

OPTION_VARIANTS = {
    "weights": {"weights": (0.3, 1.7)},
    "lambda": {"lam": 0.7},
    "no-normalize": {"normalize": False},
    "weights-lambda-no-normalize": {"weights": (2.0, 0.25), "lam": 1.5, "normalize": False},
    "weight-zero": {"weights": (0.0, 1.0)},
    "lambda-zero": {"lam": 0.0},
    "lambda-negative": {"lam": -1.0},
}


@pytest.mark.parametrize("variant", OPTION_VARIANTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_lambda_and_normalize(program, family, strategy, variant):
    made, options = family("BF16"), varied(strategy, **OPTION_VARIANTS[variant])
    merge = program.merge(made, *FULL_READ, options=options)
    expected = oracle.merge_model(made.base.tensors, made.expert_tensors(), options)
    checkpoint.assert_same_bits(expected, merge.tensors(), variant)


@pytest.mark.parametrize("density", [0.01, 0.25, 1.0])
@pytest.mark.parametrize("strategy", ["ties-tensor", "ties-block", "dare"])
def test_density(program, family, strategy, density):
    made, options = family("F32"), varied(strategy, density=density)
    check_full(program.merge(made, *FULL_READ, options=options), made, options)


def test_ties_thr_is_another_name_for_density(program, family):
    made, options = family("F32"), varied("ties-tensor", density=0.3)
    plain = STRATEGIES["ties-tensor"]
    check_full(program.merge(made, *FULL_READ, "--ties-thr", "0.3", options=plain), made, options)


@pytest.mark.parametrize("seed", [1, 2**63 + 5])
def test_dare_seed(program, family, seed):
    made, options = family("F32"), varied("dare", seed=seed)
    merge = program.merge(made, *FULL_READ, options=options)
    check_full(merge, made, options)
    other = oracle.merge_model(made.base.tensors, made.expert_tensors(), varied("dare"))
    name = "model.layers.0.mlp.up_proj.weight"
    assert checkpoint.difference(name, other[name], merge.tensors()[name]), "the seed changed nothing"


@pytest.mark.parametrize("strategy, lam, weights", [("avg", None, (1.0, 1.0)), ("ties-tensor", 1.0, (1.0, 1.0))])
def test_stating_the_defaults_changes_nothing(program, family, strategy, lam, weights):
    made = family("BF16")
    options = varied(strategy, lam=lam, weights=weights)
    stated = program.merge(made, *FULL_READ, "--scoring", "l2cos", options=options, out="stated")
    left = program.merge(made, *FULL_READ, options=STRATEGIES[strategy], out="left")
    assert stated.plan["plan_hash"] == left.plan["plan_hash"]
    assert stated.output_files() == left.output_files()


# ------------------------------------------------------------------------------------------------ the dtypes

@pytest.mark.parametrize("out_dtype", ["same", "f32", "f16", "bf16"])
@pytest.mark.parametrize("strategy", ["avg", "ties-tensor"])
@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_out_dtype(program, family, dtype, strategy, out_dtype):
    """Every float tensor, touched or not, is rounded once; integer tensors stay as they are."""
    made, options = family(dtype), varied(strategy, out_dtype=out_dtype)
    merge = program.merge(made, *FULL_READ, options=options)
    check_full(merge, made, options)
    named = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
    config = (merge.out / "config.json").read_text()
    if out_dtype in named:
        assert f'"{named[out_dtype]}"' in config, f"torch_dtype does not follow --out-dtype: {config}"
    else:
        assert config == (made.base.path / "config.json").read_text()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_out_dtype_with_untouched_blocks(program, family, strategy):
    """Blocks that no expert touches are converted too, when the output has another type than the base."""
    made, options = family("BF16"), varied(strategy, out_dtype="f32")
    merge = program.merge(made, "--io-budget-mb", budget(made, 0.3), "--top-p", "0.5", options=options)
    check(merge, made, options)


@pytest.mark.parametrize("base, expert", [("BF16", "F32"), ("F32", "BF16"), ("F16", "BF16"), ("BF16", "F64")])
@pytest.mark.parametrize("strategy", ["avg", "ties-tensor"])
def test_experts_of_another_dtype(program, family, strategy, base, expert):
    made, options = family(base, expert_dtype=expert), STRATEGIES[strategy]
    check_full(program.merge(made, *FULL_READ, options=options), made, options)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_f64(program, family, strategy):
    """F64 is taken at float32 for the delta, and keeps its 64 bits where nothing is merged."""
    made, options = family("F64"), STRATEGIES[strategy]
    check_full(program.merge(made, *FULL_READ, options=options), made, options)


def test_integer_tensors_come_from_the_base_and_differences_are_reported(program):
    made = checkpoint.make_family(program.root / "ints", "F32", shapes={"w": (50, 5)})
    odd = made.experts[1].tensors | {"model.codes": np.arange(7, dtype=np.uint8) + 100}
    checkpoint.write_safetensors(made.experts[1].path / "model.safetensors", odd)
    merge = program.merge(made, *FULL_READ)
    assert merge.tensors()["model.codes"].tolist() == made.base.tensors["model.codes"].tolist()
    said = merge.outcome.stdout + merge.outcome.stderr
    assert "model.codes" in said, f"an expert's integer tensor differs and nothing says so{merge.outcome}"
    assert "model.mask" not in said, f"a tensor that is equal is reported{merge.outcome}"


# -------------------------------------------------------------------------------------------- budgeted plans

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_budgeted_plan(program, family, strategy, dtype):
    """Given the plan's access set, the oracle makes the same bits."""
    made, options = family(dtype, experts=3), STRATEGIES[strategy]
    merge = program.merge(made, "--io-budget-mb", budget(made, 0.4), "--top-p", "0.8", options=options)
    check(merge, made, options)
    assert_really_budgeted(merge)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_budgeted_plan_on_three_ranks(program, family, strategy):
    made, options = family("BF16", shards=2, experts=3), STRATEGIES[strategy]
    merge = program.merge(made, "--io-budget-mb", budget(made, 0.4), "--top-p", "0.8", options=options, ranks=3)
    check(merge, made, options)
    assert_really_budgeted(merge)


def assert_really_budgeted(merge) -> None:
    """The plan took some pairs and left some, or the test above proved nothing."""
    chosen = [c for tensor in oracle.selections_of(merge.plan).values() for c in tensor]
    pairs, taken = sum(c.size for c in chosen), sum(int(c.sum()) for c in chosen)
    assert 0.1 * pairs < taken < 0.6 * pairs, f"{taken} of {pairs} pairs selected"
    assert merge.expert_bytes_read() <= merge.manifest["io"]["budget_bytes"]


def test_top_p_bounds_the_touched_blocks(program, family):
    made, options = family("F32"), STRATEGIES["avg"]
    merge = program.merge(made, "--no-budget", "--top-p", "0.25", options=options)
    check(merge, made, options)
    plan = merge.plan
    chosen = oracle.selections_of(plan)
    touched = {t["name"]: int(np.any(chosen.get(t["name"], [[]]), axis=0).sum()) for t in plan["tensors"]}
    stated = {t["name"]: t.get("touched_blocks", 0) for t in plan["tensors"]}
    assert touched == stated
    blocks = sum(oracle.block_count(t.size, ODD_BLOCK) for t in made.base.tensors.values())
    assert 0 < sum(touched.values()) <= -(-blocks // 4), f"{sum(touched.values())} of {blocks} blocks touched"


def test_default_budget_and_top_p(program, family):
    """906 MiB and 0.35 when nothing is said."""
    made, options = family("F32"), STRATEGIES["ties-tensor"]
    merge = program.merge(made, options=options)
    check(merge, made, options)
    assert merge.plan["options"]["budget_bytes"] == 906 * 2**20
    assert merge.plan["options"]["top_p"] == 0.35


# ------------------------------------------------------------------------- tensors that do not line up

def test_missing_base_keeps_the_bases_version(program):
    """--missing base: an expert without a tensor counts as absent there; weights stay those of all experts."""
    made = checkpoint.make_family(program.root / "missing", "F32", shapes={"a": (50, 5), "b": (30,), "c": (9,)})
    for expert, lacks in zip(made.experts, [("a", "c"), ("c",)]):
        expert.tensors = {n: t for n, t in expert.tensors.items() if n not in lacks}
        checkpoint.write_safetensors(expert.path / "model.safetensors", expert.tensors)
    options = STRATEGIES["avg"]
    merge = program.merge(made, *FULL_READ, "--missing", "base", options=options)
    check_full(merge, made, options)
    assert {t["name"]: t["rule"] for t in merge.plan["tensors"]}["c"] == "base"


def test_extra_drop_leaves_the_tensor_out_and_says_so(program):
    made = checkpoint.make_family(program.root / "extra", "F32", shapes={"a": (50, 5)})
    more = made.experts[0].tensors | {"added.weight": np.ones(5, np.float32)}
    checkpoint.write_safetensors(made.experts[0].path / "model.safetensors", more)
    merge = program.merge(made, *FULL_READ, "--extra", "drop")
    assert set(merge.tensors()) == set(made.base.tensors)
    assert "added.weight" in (merge.run / "manifest.json").read_text(), "the manifest does not account for it"


def test_a_tied_head_is_resolved(program):
    """The base stores lm_head, an expert ties it to its embedding: the embedding is its head."""
    made = checkpoint.make_family(program.root / "tied", "BF16", shapes={
        "model.embed_tokens.weight": (40, 9), "lm_head.weight": (40, 9)})
    tied = made.experts[0]
    checkpoint.write_safetensors(tied.path / "model.safetensors",
                                 {n: t for n, t in tied.tensors.items() if n != "lm_head.weight"})
    config = checkpoint.config_of("BF16") | {"tie_word_embeddings": True}
    (tied.path / "config.json").write_text(json.dumps(config))
    tied.tensors = tied.tensors | {"lm_head.weight": tied.tensors["model.embed_tokens.weight"]}
    options = STRATEGIES["ties-tensor"]
    check_full(program.merge(made, *FULL_READ, options=options), made, options)


# ----------------------------------------------------------------------------------- thresholds read again

def reads_of(plan: dict) -> dict[str, int]:
    return {t["name"]: t["reads"] for t in plan["tensors"] if t["rule"] == "merge"}


@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_too_large_to_hold_are_read_again(program, family, dtype, ranks):
    """--resident-mb 0.01: the selected bytes of the largest tensor do not fit, its thresholds stay exact."""
    made, options = family(dtype), STRATEGIES["ties-tensor"]
    merge = program.merge(made, *FULL_READ, "--resident-mb", "0.01", options=options, ranks=ranks)
    reads = reads_of(merge.plan)
    assert reads["model.layers.0.mlp.up_proj.weight"] == 3 and reads["model.layers.0.exact"] == 1, reads
    check_full(merge, made, options)
    selected = {t.name: t for t in planned_bytes(merge.plan)}
    assert merge.plan["planned"]["merge_bytes"] == sum(t.bytes * t.reads for t in selected.values())


@pytest.mark.parametrize("ranks", [None, 3])
def test_reading_again_stays_within_the_budget(program, family, ranks):
    made, options = family("BF16"), STRATEGIES["ties-tensor"]
    merge = program.merge(made, "--io-budget-mb", budget(made, 0.9), "--top-p", "1", "--resident-mb", "0.001",
                          options=options, ranks=ranks)
    assert 3 in reads_of(merge.plan).values()
    check(merge, made, options)
    assert merge.expert_bytes_read() <= merge.manifest["io"]["budget_bytes"]


@pytest.mark.parametrize("strategy", ["avg", "ties-block", "dare"])
def test_block_local_strategies_read_once(program, family, strategy):
    merge = program.merge(family("F32"), *FULL_READ, "--resident-mb", "0.001", options=STRATEGIES[strategy])
    assert set(reads_of(merge.plan).values()) == {1}


class PlannedTensor:
    def __init__(self, entry: dict, block: int, sizes: list[int]):
        self.name, self.reads = entry["name"], entry["reads"]
        elements = int(np.prod(entry["shape"], dtype=np.int64))
        chosen = [oracle.parse_selection(t, oracle.block_count(elements, block)) for t in entry["selected"]]
        self.bytes = sum(int(oracle.spread(c, elements, block).sum()) * size for c, size in zip(chosen, sizes))


def planned_bytes(plan: dict) -> list[PlannedTensor]:
    """The bytes of one pass over what each tensor's plan selects; experts have the base's dtypes."""
    size = {name: np.dtype(dtype).itemsize for name, dtype in checkpoint.DTYPES.items()}
    return [PlannedTensor(t, plan["options"]["block_size"], [size[t["dtype"]]] * len(t["selected"]))
            for t in plan["tensors"] if t["rule"] == "merge"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_planned_bytes_are_those_of_the_access_set(program, family, strategy):
    made = family("BF16", experts=3)
    plan = program.plan(made, "--io-budget-mb", budget(made, 0.4), "--top-p", "0.8", options=STRATEGIES[strategy])
    planned = plan["planned"]
    assert planned["merge_bytes"] == sum(t.bytes * t.reads for t in planned_bytes(plan))
    assert planned["fingerprint_bytes"] == made.fingerprint_bytes()
    assert planned["compare_bytes"] == made.compare_bytes()
    parts = sum(planned[f"{part}_bytes"] for part in ("fingerprint", "probe", "compare", "merge"))
    assert planned["total_bytes"] == parts <= plan["options"]["budget_bytes"]
