"""Checkpoints for the tests: seeded families written by hand, outputs read back by the official package."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
INDEX = "model.safetensors.index.json"
SAMPLES, SAMPLE_BYTES = 16, 4096


# ---------------------------------------------------------------------------------------------- writing

def raw_safetensors(path: Path, header, data: bytes = b"", length: int | None = None) -> Path:
    """A file of exactly these parts, however wrong: `header` is bytes, text, or an object for JSON."""
    if not isinstance(header, (bytes, str)):
        header = json.dumps(header, ensure_ascii=False)
    text = header.encode() if isinstance(header, str) else header
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def header_of(tensors: dict[str, np.ndarray], metadata: dict | None = None) -> dict:
    header: dict = {} if metadata is None else {"__metadata__": metadata}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    return header


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    data = b"".join(np.ascontiguousarray(tensor).tobytes() for tensor in tensors.values())
    return raw_safetensors(path, header_of(tensors, {"format": "pt"}), data)


SIDE_FILES = {
    "generation_config.json": '{"bos_token_id": 1}\n',
    "tokenizer.json": '{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"größe": 0}}}\n',
    "tokenizer_config.json": '{"model_max_length": 64}\n',
    "special_tokens_map.json": "{}\n",
    "chat_template.jinja": "{{ messages }}\n",
    "README.md": "# a model\n",
}


def config_of(dtype: str) -> dict:
    torch_name = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}[dtype]
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": torch_name}


def write_model(directory: Path, shards: list[dict[str, np.ndarray]], dtype: str = "F32",
                side_files: bool = True, config: dict | None = None) -> Path:
    """A Hugging Face directory: one model.safetensors, or several shards and their index."""
    directory.mkdir(parents=True)
    if len(shards) == 1:
        write_safetensors(directory / "model.safetensors", shards[0])
    else:
        write_shards(directory, shards)
    (directory / "config.json").write_text(json.dumps(config or config_of(dtype), indent=2))
    for name, text in (SIDE_FILES if side_files else {}).items():
        (directory / name).write_text(text)
    return directory


def write_shards(directory: Path, shards: list[dict[str, np.ndarray]]) -> None:
    weight_map = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        write_safetensors(directory / file, shard)
        weight_map |= {name: file for name in shard}
    size = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index, indent=2, ensure_ascii=False))


# ---------------------------------------------------------------------------------------------- reading

def weight_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def read_header(path: Path) -> tuple[int, dict]:
    """Where the data start, and the header."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return 8 + length, json.loads(file.read(length))


def read_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of one file as the official safetensors package sees them, bits untouched."""
    return {
        name: np.frombuffer(entry["data"], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in safetensors.deserialize(path.read_bytes())
    }


def read_model(directory: Path) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for path in weight_files(directory):
        for name, tensor in read_file(path).items():
            assert name not in tensors, f"{path}: {name} is in two shards"
            tensors[name] = tensor
    return tensors


def fingerprint_bytes(directory: Path) -> int:
    """What one fingerprint reads of a model's data: 16 pieces of 4 KiB a file, or all if that is no less."""
    total = 0
    for path in weight_files(directory):
        begin, _ = read_header(path)
        total += min(path.stat().st_size - begin, SAMPLES * SAMPLE_BYTES)
    return total


def weight_bytes(directory: Path) -> int:
    return sum(path.stat().st_size - read_header(path)[0] for path in weight_files(directory))


def all_files(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, by relative path."""
    return {str(path.relative_to(directory)): path.read_bytes()
            for path in sorted(directory.rglob("*")) if path.is_file()}


def side_files(directory: Path) -> dict[str, bytes]:
    """What a merge copies from the base: all but weights, their index and dot files."""
    return {name: data for name, data in all_files(directory).items()
            if not name.endswith(".safetensors") and name not in (INDEX, "manifest.json")
            and not Path(name).name.startswith(".")}


# -------------------------------------------------------------------------------------------- comparing

def bits(tensor: np.ndarray) -> np.ndarray:
    """The stored bits of a tensor: -0 is not +0, and NaN equals itself."""
    return np.ascontiguousarray(tensor).reshape(-1).view(f"u{tensor.dtype.itemsize}")


def difference(name: str, expected: np.ndarray, actual: np.ndarray) -> str | None:
    """A line saying how two tensors differ, or None if they are the same bits."""
    if expected.dtype != actual.dtype or expected.shape != actual.shape:
        return (f"{name}: expected {expected.dtype}{list(expected.shape)}, "
                f"got {actual.dtype}{list(actual.shape)}")
    wrong = np.flatnonzero(bits(expected) != bits(actual))
    if wrong.size == 0:
        return None
    at = int(wrong[0])
    return (f"{name}: {wrong.size} of {expected.size} elements differ, first at {at}: expected "
            f"{expected.reshape(-1)[at]!r} ({int(bits(expected)[at]):#x}), "
            f"got {actual.reshape(-1)[at]!r} ({int(bits(actual)[at]):#x})")


def assert_same_bits(expected: dict[str, np.ndarray], actual: dict[str, np.ndarray], what: str = "") -> None:
    assert set(expected) == set(actual), (
        f"{what}: missing {sorted(set(expected) - set(actual))}, extra {sorted(set(actual) - set(expected))}")
    lines = [line for name in expected if (line := difference(name, expected[name], actual[name]))]
    assert not lines, f"{what}: {len(lines)} of {len(expected)} tensors differ\n" + "\n".join(lines[:10])


# --------------------------------------------------------------------------------------------- families

@dataclass
class Model:
    path: Path
    tensors: dict[str, np.ndarray] = field(repr=False)

    @property
    def name(self) -> str:
        return self.path.name


@dataclass
class Family:
    base: Model
    experts: list[Model]

    def paths(self) -> list[str]:
        return [str(expert.path) for expert in self.experts]

    def expert_tensors(self) -> list[dict[str, np.ndarray]]:
        return [expert.tensors for expert in self.experts]

    def fingerprint_bytes(self) -> int:
        return sum(fingerprint_bytes(expert.path) for expert in self.experts)

    def compare_bytes(self) -> int:
        """Integer and bool tensors of the experts, which are read only to be compared with the base's."""
        return sum(tensor.nbytes for expert in self.experts for name, tensor in expert.tensors.items()
                   if NAMES[tensor.dtype][0] in "IUB" and NAMES[tensor.dtype] != "BF16")

    def merge_bytes(self) -> int:
        """Float tensors of all experts: what a full-read merge with one pass reads."""
        return sum(weight_bytes(expert.path) for expert in self.experts) - self.compare_bytes()


# Odd on purpose: nothing is a multiple of the block size of 100 except `exact`, which is.
FLOAT_SHAPES = {
    "model.embed_tokens.weight": (37, 19),
    "model.layers.0.self_attn.q_proj.weight": (24, 24),
    "model.layers.0.mlp.up_proj.weight": (61, 97),
    "model.layers.0.exact": (4, 50),
    "model.layers.0.one_element": (1,),
    "model.layers.0.scalar": (),
    "model.layers.0.empty": (0, 4),
    "model.größe.权重.😀": (5, 7, 3),
    "model.tiny_numbers": (130,),
    "lm_head.weight": (37, 23),
}
ODD_BLOCK = 100


def make_base(rng: np.random.Generator, dtype: str, shapes=FLOAT_SHAPES) -> dict[str, np.ndarray]:
    tensors = {name: base_values(rng, name, shape, dtype) for name, shape in shapes.items()}
    other = "F32" if dtype != "F32" else "BF16"  # one tensor of another type, as norms often are
    tensors["model.norm.weight"] = rng.normal(1, 0.1, 33).astype(DTYPES[other])
    tensors["model.position_ids"] = np.arange(16, dtype=np.int64).reshape(1, 16)
    tensors["model.mask"] = rng.integers(0, 2, (3, 5)).astype(np.bool_)
    tensors["model.codes"] = rng.integers(0, 255, 7).astype(np.uint8)
    return tensors


def base_values(rng: np.random.Generator, name: str, shape, dtype: str) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64))
    values = rng.normal(0, 0.05, size)
    values[rng.random(size) < 0.05] = 0.0
    values[rng.random(size) < 0.02] = -0.0
    if "tiny" in name:  # subnormal in every type: flushing them to zero would show
        values *= float(np.finfo(np.float32).tiny if dtype != "F16" else 2.0**-14)
    return values.astype(np.float32).astype(DTYPES[dtype]).reshape(shape)


def derive_expert(rng: np.random.Generator, base: dict[str, np.ndarray], dtype: str | None = None,
                  scale: float = 0.01, unchanged_run: int = 150) -> dict[str, np.ndarray]:
    """A fine-tuned copy: deltas with exact zeros, equal magnitudes and an unchanged run of elements."""
    return {name: derive_tensor(rng, tensor, dtype, scale, unchanged_run) for name, tensor in base.items()}


def derive_tensor(rng, tensor, dtype, scale, unchanged_run):
    if NAMES[tensor.dtype] not in ("F64", "F32", "F16", "BF16"):
        return tensor.copy()
    origin = tensor.reshape(-1).astype(np.float32)
    spread = np.float32(scale) * np.maximum(np.abs(origin).mean() if origin.size else 0, np.float32(1e-45)) * 20
    delta = rng.normal(0, 1, origin.size).astype(np.float32)
    coarse = rng.random(origin.size) < 0.5
    delta[coarse] = np.round(delta[coarse] * 4) / 4  # many equal magnitudes: ties at the threshold
    delta *= spread
    delta[rng.random(origin.size) < 0.2] = 0
    if origin.size > 3 * unchanged_run:
        at = int(rng.integers(0, origin.size - unchanged_run))
        delta[at : at + unchanged_run] = 0
    result = (origin + delta).astype(DTYPES[dtype] if dtype else tensor.dtype)
    return result.reshape(tensor.shape)


def split(tensors: dict[str, np.ndarray], shards: int) -> list[dict[str, np.ndarray]]:
    """Tensors dealt to shards in turn, so that shard order is not name order."""
    parts: list[dict[str, np.ndarray]] = [{} for _ in range(shards)]
    for i, (name, tensor) in enumerate(tensors.items()):
        parts[i % shards][name] = tensor
    return parts


def make_family(root: Path, dtype: str = "F32", experts: int = 2, shards: int = 1, seed: int = 1,
                expert_dtype: str | None = None, shapes=FLOAT_SHAPES) -> Family:
    """Writes root/base, root/expert_a, root/expert_b, ... and keeps their tensors."""
    rng = np.random.default_rng(seed)
    base = make_base(rng, dtype, shapes)
    models = [Model(write_model(root / "base", split(base, shards), dtype), base)]
    for i in range(experts):
        tensors = derive_expert(rng, base, expert_dtype, scale=0.01 * (i + 1))
        # An expert may be cut into other shards than the base.
        path = write_model(root / f"expert_{'abcdefgh'[i]}", split(tensors, 1 + i % 2 * (shards > 1)), dtype)
        models.append(Model(path, tensors))
    return Family(models[0], models[1:])
