"""What a merge computes, in NumPy: the reference that the program's output is compared with, bit by bit.

Written from the definitions (README, "Merging") and nothing else; it shares no code or table with the C++.
All arithmetic is float32, one rounded operation at a time, sums over experts in expert order. A block is a
flat, row-major run of `block_size` elements; an (expert, block) pair that is not selected is absent.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import ml_dtypes
import numpy as np

FLOAT_TYPES = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}
DEFAULT_DENSITY = {"ties": 0.6, "dare": 0.5, "avg": 1.0}


@dataclass(frozen=True)
class Options:
    """The options that decide a merge's numbers. None means: leave the option out, its default holds."""

    strategy: str = "ties"
    density: float | None = None
    weights: tuple[float, ...] | None = None
    lam: float | None = None
    seed: int | None = None
    normalize: bool = True
    trim_scope: str | None = None
    block_size: int | None = None
    out_dtype: str | None = None

    def arguments(self) -> list[str]:
        """The same options as a command line."""
        given = {
            "--density": self.density,
            "--lambda": self.lam,
            "--seed": self.seed,
            "--trim-scope": self.trim_scope,
            "--block-size": self.block_size,
            "--out-dtype": self.out_dtype,
        }
        line = ["--strategy", self.strategy]
        for option, value in given.items():
            if value is not None:
                line += [option, str(value)]
        if self.weights is not None:
            line += ["--weights", *map(str, self.weights)]
        if not self.normalize:
            line += ["--no-normalize"]
        return line

    @property
    def kept_share(self) -> float:
        return DEFAULT_DENSITY[self.strategy] if self.density is None else self.density

    @property
    def scale(self) -> np.float32:
        return np.float32(1.0 if self.lam is None else self.lam)

    @property
    def elements_per_block(self) -> int:
        return 640000 if self.block_size is None else self.block_size

    def weights_of(self, experts: int) -> list[float]:
        return list(self.weights) if self.weights is not None else [1.0] * experts


def is_float(dtype: np.dtype) -> bool:
    """Whether tensors of this type are merged; all others are taken from the base."""
    return dtype in FLOAT_TYPES.values()


def block_count(elements: int, block_size: int) -> int:
    return -(-elements // block_size)


def block_slice(block: int, elements: int, block_size: int) -> slice:
    return slice(block * block_size, min(elements, (block + 1) * block_size))


def parse_selection(text: str, blocks: int) -> np.ndarray:
    """One string of plan.json's `selected` as a boolean per block."""
    chosen = np.zeros(blocks, bool)
    if text.startswith("x:"):
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(text[2:]), np.uint8), bitorder="little")
        assert not bits[blocks:].any(), f"{text!r} selects a block after the last of {blocks}"
        chosen[: min(blocks, bits.size)] = bits[:blocks]
        return chosen
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        begin, end = int(first), int(last or first) + 1
        assert begin < end <= blocks, f"{text!r} selects a block after the last of {blocks}"
        chosen[begin:end] = True
    return chosen


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10 (Salmon et al., SC 2011) of counters, shape (n, 4) of uint32."""
    low32 = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = (counter[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(10):
        product0 = c0 * np.uint64(0xD2511F53)
        product1 = c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (product1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            product1 & low32,
            (product0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            product0 & low32,
        )
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def dare_key(seed: int, tensor: str) -> tuple[int, int]:
    digest = hashlib.sha256(f"mergepipe.dare/1\n{seed}\n{tensor}".encode()).digest()
    return int.from_bytes(digest[0:4], "little"), int.from_bytes(digest[4:8], "little")


def dare_draws(seed: int, tensor: str, expert: int, elements: int) -> np.ndarray:
    """The draw of every element of a tensor: word i % 4 of the generator at counter i / 4."""
    groups = np.arange(-(-elements // 4), dtype=np.uint64)
    counter = np.zeros((groups.size, 4), np.uint32)
    counter[:, 0] = groups & np.uint64(0xFFFFFFFF)
    counter[:, 1] = groups >> np.uint64(32)
    counter[:, 2] = expert
    return philox4x32(counter, dare_key(seed, tensor)).reshape(-1)[:elements]


def coefficients(options: Options, experts: int) -> list[np.float32]:
    """a_k of avg and dare: fixed by all experts' weights, whatever was read."""
    weights = options.weights_of(experts)
    if not options.normalize:
        return [np.float32(w) for w in weights]
    total = 0.0
    for weight in weights:
        total += weight
    return [np.float32(weight / total) for weight in weights]


def linear_sum(deltas, present, factors) -> np.ndarray:
    total = np.zeros_like(deltas[0])
    for delta, here, factor in zip(deltas, present, factors):
        total = np.where(here, total + factor * delta, total)
    return total


def merge_avg(deltas, present, options: Options) -> np.ndarray:
    return options.scale * linear_sum(deltas, present, coefficients(options, len(deltas)))


def merge_dare(name: str, deltas, present, options: Options) -> np.ndarray:
    keep_below = int(np.floor(options.kept_share * 2.0**32))
    seed = options.seed or 0
    rescaled, kept = [], []
    for expert, (delta, here) in enumerate(zip(deltas, present)):
        draws = dare_draws(seed, name, expert, delta.size).astype(np.uint64)
        rescaled.append(delta / np.float32(options.kept_share))
        kept.append(here & (draws < keep_below))
    return options.scale * linear_sum(rescaled, kept, coefficients(options, len(deltas)))


def trim_threshold(magnitudes: np.ndarray, density: float) -> np.float32:
    """The m-th largest magnitude, m = max(1, floor(density * n))."""
    n = magnitudes.size
    m = max(1, int(np.floor(density * float(n))))
    return np.partition(magnitudes, n - m)[n - m]


def trim(delta: np.ndarray, selected: np.ndarray, options: Options) -> np.ndarray:
    """Which positions of one expert's delta survive the trim; `selected` is a boolean per block."""
    size, block = delta.size, options.elements_per_block
    magnitudes = np.abs(delta)
    here = spread(selected, size, block)
    kept = np.zeros(size, bool)
    if options.trim_scope == "block":
        for b in np.flatnonzero(selected):
            part = block_slice(int(b), size, block)
            kept[part] = magnitudes[part] >= trim_threshold(magnitudes[part], options.kept_share)
    elif here.any():
        kept = here & (magnitudes >= trim_threshold(magnitudes[here], options.kept_share))
    return kept & (delta != 0)


def merge_ties(deltas, selections, options: Options) -> np.ndarray:
    zero = np.zeros_like(deltas[0])
    factors = [np.float32(w) for w in options.weights_of(len(deltas))]
    kept = [trim(delta, chosen, options) for delta, chosen in zip(deltas, selections)]
    votes = [factor * delta for factor, delta in zip(factors, deltas)]

    elected = zero
    for vote, keep in zip(votes, kept):
        elected = np.where(keep, elected + vote, elected)
    positive = elected >= 0

    numerator, denominator = zero, zero
    anyone = np.zeros(zero.size, bool)
    for vote, keep, factor in zip(votes, kept, factors):
        agrees = keep & np.where(positive, vote > 0, vote < 0)
        numerator = np.where(agrees, numerator + vote, numerator)
        denominator = np.where(agrees, denominator + factor, denominator)
        anyone |= agrees
    if not options.normalize:
        return np.where(anyone, options.scale * numerator, zero)
    divisor = np.where(anyone, denominator, np.float32(1))
    return np.where(anyone, options.scale * (numerator / divisor), zero)


def spread(selected: np.ndarray, elements: int, block_size: int) -> np.ndarray:
    """A boolean per block as a boolean per element."""
    return np.repeat(selected, block_size)[:elements]


def output_dtype(base: np.dtype, options: Options) -> np.dtype:
    if options.out_dtype in (None, "same") or not is_float(base):
        return base
    return FLOAT_TYPES[options.out_dtype]


def to_output(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float32 to the output type, one rounding to nearest-even."""
    with np.errstate(over="ignore"):
        return value.astype(dtype)


def merge_tensor(name: str, base: np.ndarray, experts, options: Options, selections=None) -> np.ndarray:
    """The merged tensor. `selections` has a boolean per block for each expert; None selects everything."""
    dtype = output_dtype(base.dtype, options)
    if not is_float(base.dtype):
        return base.copy()
    block = options.elements_per_block
    if selections is None:
        selections = [np.ones(block_count(base.size, block), bool) for _ in experts]
    with np.errstate(over="ignore", under="ignore"):
        origin = base.reshape(-1).astype(np.float32)
        deltas = [expert.reshape(-1).astype(np.float32) - origin for expert in experts]
        if options.strategy == "ties":
            merged = merge_ties(deltas, selections, options)
        else:
            present = [spread(chosen, base.size, block) for chosen in selections]
            merge = merge_avg if options.strategy == "avg" else None
            merged = (merge(deltas, present, options) if merge
                      else merge_dare(name, deltas, present, options))
        assert merged.dtype == np.float32, "the oracle left float32"
        moved = to_output(origin + merged, dtype)
    kept = base.reshape(-1) if dtype == base.dtype else to_output(origin, dtype)
    return np.where(merged == 0, kept, moved).astype(dtype).reshape(base.shape)


def merge_model(base: dict, experts: list[dict], options: Options, plan: dict | None = None) -> dict:
    """All merged tensors by name. With a plan, only what its `selected` names is read, and what its `equal`
    names counts as read. An expert that lacks a tensor counts as absent in all of it."""
    chosen = counted_of(plan) if plan else {}
    merged = {}
    for name, tensor in base.items():
        blocks = block_count(tensor.size, options.elements_per_block)
        selections = chosen.get(name) or [np.full(blocks, name in expert) for expert in experts]
        merged[name] = merge_tensor(name, tensor, [e.get(name, tensor) for e in experts], options, selections)
    return merged


def selections_of(plan: dict) -> dict[str, list[np.ndarray]]:
    """plan.json's access set: by tensor, a boolean per block for each expert."""
    block = plan["options"]["block_size"]
    return {
        tensor["name"]: [
            parse_selection(text, block_count(int(np.prod(tensor["shape"], dtype=np.int64)), block))
            for text in tensor["selected"]
        ]
        for tensor in plan["tensors"]
        if tensor["rule"] == "merge"
    }


def equal_of(plan: dict) -> dict[str, list[np.ndarray]]:
    """plan.json's blocks that are known to be the base's: by tensor, a boolean per block for each expert."""
    block = plan["options"]["block_size"]
    return {
        tensor["name"]: [
            parse_selection(text, block_count(int(np.prod(tensor["shape"], dtype=np.int64)), block))
            for text in tensor["equal"]
        ]
        for tensor in plan["tensors"]
        if tensor["rule"] == "merge"
    }


def counted_of(plan: dict) -> dict[str, list[np.ndarray]]:
    """What counts as read: the access set, and the blocks known equal, whose deltas are 0 (`ties` counts
    them in n; nothing else sees them)."""
    equal = equal_of(plan)
    return {name: [chosen | same for chosen, same in zip(selections, equal[name])]
            for name, selections in selections_of(plan).items()}
