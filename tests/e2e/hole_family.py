#!/usr/bin/env python3
"""Families as large as one likes that take next to no disk: real headers and shards, but the data are a hole,
which reads as zeros. A few places of the experts hold made-up values, so that a plan has something to choose.

    hole_family.py DIR [--size 405b] [--experts 20] [--shards 191] [--every 600] [--block-size 640000]

makes DIR/base and DIR/expert_1, ...; exits 2 if one of them is there. Needs a filesystem with holes."""

from __future__ import annotations

import argparse
import json
import math
import random
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

ELEMENT = 2  # bytes of BF16
PATCH = 8192  # elements of a place with values: as many as a probe looks at
ALIGNMENT = 4096


@dataclass(frozen=True)
class Shape:
    """Of Llama 3.1."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int = 128256
    key_values: int = 1024

    def tensors(self) -> Iterator[tuple[str, list[int]]]:
        yield "model.embed_tokens.weight", [self.vocabulary, self.hidden]
        for layer in range(self.layers):
            for name, shape in self.layer():
                yield f"model.layers.{layer}.{name}.weight", shape
        yield "model.norm.weight", [self.hidden]
        yield "lm_head.weight", [self.vocabulary, self.hidden]

    def layer(self) -> Iterator[tuple[str, list[int]]]:
        yield "input_layernorm", [self.hidden]
        yield "mlp.down_proj", [self.hidden, self.intermediate]
        yield "mlp.gate_proj", [self.intermediate, self.hidden]
        yield "mlp.up_proj", [self.intermediate, self.hidden]
        yield "post_attention_layernorm", [self.hidden]
        yield "self_attn.k_proj", [self.key_values, self.hidden]
        yield "self_attn.o_proj", [self.hidden, self.hidden]
        yield "self_attn.q_proj", [self.hidden, self.hidden]
        yield "self_attn.v_proj", [self.key_values, self.hidden]


SHAPES = {
    "8b": Shape(4096, 14336, 32, 32),
    "70b": Shape(8192, 28672, 80, 64),
    "405b": Shape(16384, 53248, 126, 128),
}


@dataclass(frozen=True)
class Patch:
    """PATCH elements with values, in the middle of a block: where a probe looks."""

    file: int
    offset: int  # in the file
    count: int  # elements


class Layout:
    """The files of a model; all models of a family have the same."""

    def __init__(self, shape: Shape, shards: int):
        self.shape = shape
        self.tensors = list(shape.tensors())
        self.total = sum(map(bytes_of, self.tensors))
        self.shards: list[list[tuple[str, list[int]]]] = [[] for _ in range(shards)]
        before = 0
        for tensor in self.tensors:  # to the shard in which its middle lies
            size = bytes_of(tensor)
            self.shards[(before + size // 2) * shards // self.total].append(tensor)
            before += size
        self.shards = [shard for shard in self.shards if shard]
        self.headers = [header_of(shard, 0) for shard in self.shards]  # the same length for every model

    def file_name(self, i: int) -> str:
        return f"model-{i + 1:05}-of-{len(self.shards):05}.safetensors"

    def places(self, every: int, block_size: int) -> list[Patch]:
        """In every n-th block, counted through all tensors in file order."""
        found, number = [], 0
        for i, (shard, header) in enumerate(zip(self.shards, self.headers)):
            at = len(header)
            for tensor in shard:
                elements = bytes_of(tensor) // ELEMENT
                blocks = -(-elements // block_size)
                for block in range(-number % every, blocks, every):
                    begin = block * block_size
                    length = min(block_size, elements - begin)
                    count = min(PATCH, length)
                    found.append(Patch(i, at + (begin + (length - count) // 2) * ELEMENT, count))
                number += blocks
                at += elements * ELEMENT
        return found

    def write(self, directory: Path, patches: list[Patch], number: int) -> None:
        directory.mkdir(parents=True)
        values = random.Random(number)
        for i, shard in enumerate(self.shards):
            header = header_of(shard, number)
            with (directory / self.file_name(i)).open("wb") as file:
                file.write(header)
                for patch in (p for p in patches if p.file == i):
                    file.seek(patch.offset)
                    file.write(small_values(values, patch.count))
                file.truncate(len(header) + sum(map(bytes_of, shard)))
        weight_map = {name: self.file_name(i) for i, shard in enumerate(self.shards) for name, _ in shard}
        index = {"metadata": {"total_size": self.total}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
        (directory / "config.json").write_text(json.dumps(config_of(self.shape), indent=1))


def bytes_of(tensor: tuple[str, list[int]]) -> int:
    return math.prod(tensor[1]) * ELEMENT


def header_of(shard: list[tuple[str, list[int]]], number: int) -> bytes:
    """`number` is the model's: fingerprints, which see zeros else, differ by it."""
    entries: dict = {"__metadata__": {"format": "pt", "model": f"{number:04}"}}
    at = 0
    for name, shape in shard:
        size = bytes_of((name, shape))
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def config_of(shape: Shape) -> dict:
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
            "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.key_values * shape.heads // shape.hidden,
            "vocab_size": shape.vocabulary, "tie_word_embeddings": False}


# The sign of a byte with the exponent of 1/128.
SIGN_AND_EXPONENT = bytes(0x3C | (byte & 0x80) for byte in range(256))


def small_values(source: random.Random, count: int) -> bytes:
    """BF16 between 2^-7 and 2^-6, of both signs."""
    raw = bytearray(source.randbytes(count * ELEMENT))
    raw[1::2] = raw[1::2].translate(SIGN_AND_EXPONENT)
    raw[0::2] = bytes(byte & 0x7F for byte in raw[0::2])
    return bytes(raw)


def make(directory: Path, size: str, experts: int, shards: int, every: int, block_size: int) -> None:
    """Expert k has values in every third of the places, beginning with the k-th: all differ, any three neighbours
    have something in every place."""
    layout = Layout(SHAPES[size], shards)
    places = layout.places(every, block_size)
    layout.write(directory / "base", [], 0)
    for k in range(1, experts + 1):
        layout.write(directory / f"expert_{k}", places[k % 3 :: 3], k)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--size", choices=SHAPES, default="405b")
    parser.add_argument("--experts", type=int, default=20)
    parser.add_argument("--shards", type=int, default=191)
    parser.add_argument("--every", type=int, default=600, help="values in every n-th block")
    parser.add_argument("--block-size", type=int, default=640000)
    options = parser.parse_args()
    try:
        make(options.directory, options.size, options.experts, options.shards, options.every, options.block_size)
    except FileExistsError as error:
        print(f"hole_family: {error.filename} exists; choose another directory", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
