"""Families whose deltas are made to be ranked: sizes that differ from run to run of elements, and frozen parts."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import checkpoint
from checkpoint import DTYPES, Family, Model

SHAPES = {  # about 50,000 elements; no size is a multiple of a block's, but the last
    "model.embed_tokens.weight": (101, 67), "model.layers.0.self_attn.q_proj.weight": (71, 83),
    "model.layers.0.mlp.up_proj.weight": (97, 103), "model.layers.0.norm.weight": (83,),
    "model.layers.1.self_attn.q_proj.weight": (71, 83), "model.layers.1.mlp.up_proj.weight": (97, 103),
    "model.scalar": (), "model.empty": (0, 3), "lm_head.weight": (100, 80),
}


@dataclass(frozen=True)
class Recipe:
    """How the experts differ from the base. `run` elements in a row have one size of delta; sizes are
    log-normal. A share `frozen` of the runs is the base's, and so are the tensors that `frozen_tensors`
    names for an expert's number."""

    dtype: str = "F32"
    experts: int = 2
    expert_dtype: str | None = None
    shards: int = 1
    seed: int = 1
    run: int = 100
    scale: float = 0.01
    spread: float = 1.2
    frozen: float = 0.15
    frozen_tensors: dict[int, tuple[str, ...]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=lambda: SHAPES)
    integers: bool = True


def make(root: Path, recipe: Recipe = Recipe()) -> Family:
    rng = np.random.default_rng(recipe.seed)
    base = make_base(rng, recipe)
    experts = [derive(rng, base, recipe, k) for k in range(recipe.experts)]
    return write(root, recipe, base, experts)


def write(root: Path, recipe: Recipe, base: dict, experts: list[dict]) -> Family:
    """root/base, root/expert_a, ..., all cut into the recipe's number of shards."""
    models = []
    for name, tensors in [("base", base), *((f"expert_{chr(ord('a') + k)}", e) for k, e in enumerate(experts))]:
        shards = checkpoint.split(tensors, recipe.shards)
        models.append(Model(checkpoint.write_model(root / name, shards, recipe.dtype), tensors))
    return Family(models[0], models[1:])


def make_base(rng: np.random.Generator, recipe: Recipe) -> dict[str, np.ndarray]:
    tensors = {name: rng.normal(0, 0.05, shape).astype(np.float32).astype(DTYPES[recipe.dtype])
               for name, shape in recipe.shapes.items()}
    if recipe.integers:
        tensors["model.position_ids"] = np.arange(16, dtype=np.int64).reshape(1, 16)
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def make_sparse(root: Path, tensors: int = 12, elements: int = 10 << 20, experts: int = 2) -> Family:
    """Models of nearly a GiB that take no disk: F64 zeros that are holes, with some values in each expert's
    tensors. For what needs size alone; the tensors here are all zeros, and never touched."""
    zeros = {f"model.layers.{i}.weight": np.zeros((elements >> 10, 1 << 10), np.float64) for i in range(tensors)}
    header = json.dumps(checkpoint.header_of(zeros, {"format": "pt"})).encode()
    begin = 8 + len(header)
    models = []
    for k, name in enumerate(["base", *(f"expert_{chr(ord('a') + k)}" for k in range(experts))]):
        path = checkpoint.write_model(root / name, [{}], "F64")
        with (path / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(begin + tensors * elements * 8)
            for i in range(tensors if k else 0):
                file.seek(begin + (i * elements + 1000 * k + i) * 8)
                file.write(np.full(100, 0.5 * k + i).tobytes())
        models.append(Model(path, zeros))
    return Family(models[0], models[1:])


def derive(rng: np.random.Generator, base: dict, recipe: Recipe, expert: int) -> dict[str, np.ndarray]:
    still = recipe.frozen_tensors.get(expert, ())
    dtype = DTYPES[recipe.expert_dtype or recipe.dtype]
    return {name: tensor.copy() if tensor.dtype == np.int64
            else (tensor.astype(dtype) if name in still else moved(rng, tensor, recipe).astype(dtype))
            for name, tensor in base.items()}


def moved(rng: np.random.Generator, tensor: np.ndarray, recipe: Recipe) -> np.ndarray:
    """The base's values plus a delta, in float32; a frozen run keeps the sign of its zeros too."""
    origin = tensor.reshape(-1).astype(np.float32)
    runs = -(-origin.size // recipe.run)
    sizes = recipe.scale * np.exp(recipe.spread * rng.normal(size=runs))
    sizes[rng.random(runs) < recipe.frozen] = 0
    delta = (rng.normal(size=origin.size) * np.repeat(sizes, recipe.run)[: origin.size]).astype(np.float32)
    return np.where(delta == 0, origin, origin + delta).reshape(tensor.shape)
