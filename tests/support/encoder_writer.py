"""Writes small valid GGUF files of BERT and its relatives, with seeded random weights and a WordPiece vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corral.model.tensor_type import TensorType
from tests.support.gguf_writer import write_gguf
from tests.support.random_blocks import random_matrix
from tests.text.toy_vocabulary import wordpiece_metadata

ENCODERS = ("bert", "nomic-bert")
Tensor = tuple[str, TensorType, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class TinyEncoder:
    """What to write.

    Args:
        fused: queries, keys and values in one tensor, as nomic-bert always has them.
        extra: more metadata, or replacements; None removes a key. Keys of the family begin with "{arch}.".
        skip: tensors to leave out.
    """

    family: str = "bert"
    tensor_type: TensorType = TensorType.F32
    num_layers: int = 3
    hidden: int = 256
    intermediate: int = 512
    num_heads: int = 4
    context_length: int = 512
    pooling: int | None = 1
    fused: bool = False
    seed: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    skip: frozenset[str] = frozenset()

    def metadata(self) -> dict[str, Any]:
        """All keys of the file but general.architecture."""
        values: dict[str, Any] = {
            "general.name": f"tiny {self.family}",
            "{arch}.context_length": self.context_length,
            "{arch}.embedding_length": self.hidden,
            "{arch}.block_count": self.num_layers,
            "{arch}.feed_forward_length": self.intermediate,
            "{arch}.attention.head_count": self.num_heads,
            "{arch}.attention.layer_norm_epsilon": 1e-12,
            "{arch}.attention.causal": False,
            "{arch}.pooling_type": self.pooling,
        }
        if self.family == "nomic-bert":
            values |= {"{arch}.rope.freq_base": 1000.0}
        values |= wordpiece_metadata() | self.extra
        return {key.format(arch=self.family): value for key, value in values.items() if value is not None}

    @property
    def vocab_size(self) -> int:
        return len(self.metadata()["tokenizer.ggml.tokens"])


def write_tiny_encoder(path: Path, model: TinyEncoder | None = None) -> Path:
    """Writes the file and returns its path."""
    model = model or TinyEncoder()
    tensors = (tensor for tensor in random_tensors(model) if tensor[0] not in model.skip)
    return write_gguf(path, model.family, model.metadata(), tensors)


def random_tensors(model: TinyEncoder) -> Iterator[Tensor]:
    """(name, type, data) of every tensor: matrices as u8[rows, row bytes] or f32[rows, cols], vectors as f32[n]."""
    rng = np.random.default_rng(model.seed)
    hidden, inner = model.hidden, model.intermediate
    is_bert = model.family == "bert"

    def matrix(name: str, rows: int, cols: int, std: float, kind: TensorType = model.tensor_type) -> Tensor:
        data = random_matrix(kind, rows, cols, std, rng)
        return name, kind, data.view(np.float32) if kind is TensorType.F32 else data

    def vector(name: str, size: int, mean: float, std: float) -> Tensor:
        return name, TensorType.F32, (mean + std * rng.standard_normal(size)).astype(np.float32)

    def norm(name: str) -> Iterator[Tensor]:
        yield vector(f"{name}.weight", hidden, 1.0, 0.1)
        yield vector(f"{name}.bias", hidden, 0.0, 0.1)

    def linear(name: str, rows: int, cols: int, gain: float = 1.0) -> Iterator[Tensor]:
        yield matrix(f"{name}.weight", rows, cols, gain / math.sqrt(cols))
        if is_bert:
            yield vector(f"{name}.bias", rows, 0.0, 0.2)

    yield matrix("token_embd.weight", model.vocab_size, hidden, 1.0)
    yield matrix("token_types.weight", 2, hidden, 0.3, TensorType.F32)
    if is_bert:
        yield matrix("position_embd.weight", model.context_length, hidden, 0.5, TensorType.F32)
    yield from norm("token_embd_norm")
    for layer in range(model.num_layers):
        block = f"blk.{layer}."
        if model.fused or not is_bert:
            yield from linear(block + "attn_qkv", 3 * hidden, hidden, 1.5)
        else:
            for part in "qkv":
                yield from linear(block + f"attn_{part}", hidden, hidden, 1.5)
        yield from linear(block + "attn_output", hidden, hidden)
        yield from norm(block + "attn_output_norm")
        if not is_bert:
            yield from linear(block + "ffn_gate", inner, hidden, 1.5)
        yield from linear(block + "ffn_up", inner, hidden, 1.5)
        yield from linear(block + "ffn_down", hidden, inner)
        yield from norm(block + "layer_output_norm")
