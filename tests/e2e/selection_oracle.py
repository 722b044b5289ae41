"""What a plan selects, in NumPy: statistics, scores, selection and error bound, from the definitions alone.

A pair is an (expert, block) of a tensor. Sums of squares are correctly rounded here (fsum), and taken over
fixed lanes by the program: they agree to some units in the last place, so a test's pairs must not lie closer
together than that unless they are equal bit by bit. `separated` checks it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

import checkpoint
import oracle

PROBE_BYTES = 16384
NEAR = 1e-12  # relative: closer than this, two different scores cannot be ranked for certain
DTYPE_SIZES = {name: np.dtype(dtype).itemsize for name, dtype in checkpoint.DTYPES.items()}


# ------------------------------------------------------------------------------------------- statistics

@dataclass(frozen=True)
class Statistics:
    """Of a delta in one block, or in the sample of it that a probe reads."""

    sum_squares: float
    max_abs: float
    nonzeros: int
    counted: int  # elements that were looked at

    @property
    def equal(self) -> bool:
        return self.nonzeros == 0


def statistics(delta: np.ndarray) -> Statistics:
    wide = delta.astype(np.float64)
    return Statistics(math.fsum((wide * wide).tolist()), float(np.abs(wide).max(initial=0)),
                      int(np.count_nonzero(delta)), delta.size)


def delta_of(base: np.ndarray, expert: np.ndarray) -> np.ndarray:
    return expert.reshape(-1).astype(np.float32) - base.reshape(-1).astype(np.float32)


def sample_of(elements: int, base_size: int) -> slice:
    """Where a block of so many elements is probed: 16 KiB of the base's type around its middle."""
    count = min(elements, PROBE_BYTES // base_size)
    first = (elements - count) // 2
    return slice(first, first + count)


# ------------------------------------------------------------------------------------------- the pairs

@dataclass
class Pair:
    tensor: int  # in the plan's order, which is the base's file order
    block: int
    expert: int
    elements: int
    bytes: int
    number: int  # of the block, over all float tensors
    statistics: Statistics
    score: float = 0.0

    @property
    def key(self) -> tuple[int, int, int]:
        return self.tensor, self.block, self.expert


@dataclass
class Block:
    """One block of the base with its pairs, and where it is probed."""

    tensor: int
    block: int
    number: int
    elements: int
    sample: slice  # within the tensor
    pairs: list[Pair] = field(default_factory=list)


def blocks_of(plan: dict, family: checkpoint.Family, sampled: bool = False) -> list[Block]:
    """All blocks of the float tensors in file order, each with the pairs of the experts that have the
    tensor, and exact statistics (or those of the sample)."""
    size = plan["options"]["block_size"]
    made: list[Block] = []
    for t, entry in enumerate(plan["tensors"]):
        base = family.base.tensors[entry["name"]]
        if not oracle.is_float(base.dtype):
            continue
        deltas = {k: (delta_of(base, family.experts[k].tensors[source["name"]]), DTYPE_SIZES[source["dtype"]])
                  for k, source in enumerate(entry["sources"]) if source}
        for b in range(oracle.block_count(base.size, size)):
            whole = oracle.block_slice(b, base.size, size)
            elements = whole.stop - whole.start
            within = sample_of(elements, base.dtype.itemsize)
            sample = slice(whole.start + within.start, whole.start + within.stop)
            block = Block(t, b, len(made), elements, sample)
            for k, (delta, element_bytes) in deltas.items():
                known = statistics(delta[sample if sampled else whole])
                block.pairs.append(Pair(t, b, k, elements, elements * element_bytes, block.number, known))
            made.append(block)
    return made


def equal_sets(plan: dict, family: checkpoint.Family) -> dict[str, list[list[int]]]:
    """By tensor and expert, the blocks whose delta is 0 everywhere."""
    found = {t["name"]: [[] for _ in t["sources"]] for t in plan["tensors"] if t["rule"] == "merge"}
    for block in blocks_of(plan, family):
        for pair in block.pairs:
            if pair.statistics.equal:
                found[plan["tensors"][block.tensor]["name"]][pair.expert].append(block.block)
    return found


# ------------------------------------------------------------------------------------------- the probe

def probe_bytes(plan: dict, blocks: list[Block], stride: int) -> int:
    """What a probe of every stride-th block reads of all experts."""
    total = 0
    for block in blocks[::stride]:
        count = block.sample.stop - block.sample.start
        total += sum(count * DTYPE_SIZES[s["dtype"]] for s in plan["tensors"][block.tensor]["sources"] if s)
    return total


def probe_stride(plan: dict, blocks: list[Block]) -> int:
    """The smallest stride whose probe is at most an eighth of the budget."""
    budget = plan["options"]["budget_bytes"]
    if budget is None:
        return 1
    for stride in range(1, len(blocks) + 1):
        if probe_bytes(plan, blocks, stride) <= budget // 8:
            return stride
    raise AssertionError("no probe fits")


def carry_probes(blocks: list[Block], stride: int) -> None:
    """Blocks between two probed ones take the statistics of the last probed before them, an element."""
    last: dict[int, Statistics] = {}
    for block in blocks:
        for pair in block.pairs:
            if block.number % stride == 0:
                last[pair.expert] = pair.statistics
            pair.statistics = last[pair.expert]


# -------------------------------------------------------------------------------------------- the scores

def score_l2(pair: Pair) -> float:
    if pair.statistics.counted == pair.elements:
        return pair.statistics.sum_squares
    return pair.statistics.sum_squares / pair.statistics.counted * pair.elements


def score_abs(pair: Pair) -> float:
    return pair.elements * pair.statistics.max_abs**2


SCORES: dict[str, Callable[[Pair], float]] = {"l2": score_l2, "abs": score_abs}


# ----------------------------------------------------------------------------------------- the selection

@dataclass(frozen=True)
class Problem:
    top_p: float
    left: float  # bytes that may go to merging; inf without a budget
    resident_bytes: int
    observation_rounds: int  # further passes over a tensor that is not resident

    def reads(self, selected_bytes: int) -> int:
        return 1 if selected_bytes <= self.resident_bytes else 1 + self.observation_rounds


def problem_of(plan: dict) -> Problem:
    options, planned = plan["options"], plan["planned"]
    fixed = planned["fingerprint_bytes"] + planned["compare_bytes"] + planned["probe_bytes"]
    left = math.inf if options["budget_bytes"] is None else options["budget_bytes"] - fixed
    observes = options["strategy"] == "ties" and options["trim_scope"] == "tensor"
    return Problem(options["top_p"], left, options["resident_bytes"], 2 if observes else 0)


@dataclass
class Choice:
    keys: set[tuple[int, int, int]]
    objective: float
    bound: float
    bytes: int


def touchable(top_p: float, blocks: int) -> int:
    """ceil(p * N), of the decimal number that the user gave."""
    return max(1, min(blocks, math.ceil(Fraction(repr(top_p)) * blocks)))


def select(problem: Problem, blocks: list[Block], exact: bool = True) -> Choice:
    """The greedy selection; `exact` statistics say which pairs equal the base and are no candidates."""
    best = limit_touched(problem, blocks, exact)
    order = sorted((p for block in best for p in candidates(block, exact)), key=lambda p: (-p.score / p.bytes, p.key))
    selected: dict[int, int] = {}
    left, room = problem.left, problem.left
    choice = Choice(set(), 0.0, 0.0, 0)
    taken = []
    bounds = []
    for pair in order:
        part = min(1.0, room / pair.bytes)
        bounds.append(part * pair.score)
        room -= part * pair.bytes
        before = selected.get(pair.tensor, 0)
        after = before + pair.bytes
        cost = after * problem.reads(after) - before * problem.reads(before)
        if cost > left:
            continue
        left -= cost
        choice.bytes += cost
        selected[pair.tensor] = after
        choice.keys.add(pair.key)
        taken.append(pair.score)
    choice.objective, choice.bound = math.fsum(taken), math.fsum(bounds)
    return choice


def candidates(block: Block, exact: bool) -> list[Pair]:
    return [pair for pair in block.pairs if not (exact and pair.statistics.equal)]


def limit_touched(problem: Problem, blocks: list[Block], exact: bool) -> list[Block]:
    """The blocks that --top-p leaves, of all that a merge writes."""
    if problem.top_p >= 1:
        return blocks
    mergeable = [block for block in blocks if block.pairs]
    sums = {block.number: plain_sum(pair.score for pair in candidates(block, exact)) for block in mergeable}
    possible = [block for block in mergeable if candidates(block, exact)]
    ranked = sorted(possible, key=lambda block: (-sums[block.number], block.number))
    return sorted(ranked[: touchable(problem.top_p, len(mergeable))], key=lambda block: block.number)


def plain_sum(values) -> float:
    """In order, rounding after each: as a plan sums scores."""
    total = 0.0
    for value in values:
        total += value
    return total


def separated(blocks: list[Block], exact: bool = True) -> bool:
    """Whether no two different numbers that are compared lie within rounding of each other."""
    ratios = [pair.score / pair.bytes for block in blocks for pair in candidates(block, exact)]
    sums = [plain_sum(pair.score for pair in candidates(block, exact)) for block in blocks]
    return apart(ratios) and apart(sums)


def apart(values: list[float]) -> bool:
    ordered = np.unique(np.array(values))
    return bool((np.diff(ordered) > NEAR * ordered[1:]).all())


def stated_keys(plan: dict) -> set[tuple[int, int, int]]:
    """The access set of a plan as keys of pairs."""
    chosen = oracle.selections_of(plan)
    return {(t, int(b), k) for t, entry in enumerate(plan["tensors"]) if entry["rule"] == "merge"
            for k, blocks in enumerate(chosen[entry["name"]]) for b in np.flatnonzero(blocks)}


# --------------------------------------------------------------------------------------------- the bound

def unread_bound(plan: dict, family: checkpoint.Family) -> float:
    """Root of the sum over blocks of (sum over unread experts of |c_k| |D_k|)^2, in float64."""
    options = plan["options"]
    weights = options["weights"]
    divisor = sum(weights) if options["normalize"] else 1.0
    factors = [abs(options["lambda"] * w / divisor) for w in weights]
    if options["strategy"] == "dare":
        factors = [factor / options["density"] for factor in factors]
    read = stated_keys(plan)
    squares = []
    for block in blocks_of(plan, family):
        unread = sum(factors[p.expert] * math.sqrt(p.statistics.sum_squares) for p in block.pairs if p.key not in read)
        squares.append(unread * unread)
    return math.sqrt(math.fsum(squares))


def distance(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """L2 over all elements of all tensors as they are stored, in float64."""
    assert set(a) == set(b)
    squares = []
    for name in a:
        gap = a[name].reshape(-1).astype(np.float64) - b[name].reshape(-1).astype(np.float64)
        squares.append(float(np.dot(gap, gap)))
    return math.sqrt(math.fsum(squares))
