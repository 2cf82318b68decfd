"""Writes small valid GGUF files of every family and tensor type, with seeded random weights and a real vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from corral.model.tensor_type import TensorType
from tests.support.random_blocks import random_matrix
from tests.support.tiny_vocab import bpe_metadata, spm_metadata

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3")  # those that generate; encoders: see encoder_writer.py
_GEMMAS = ("gemma3", "gemma-embedding")
_PRE_OF_FAMILY = {"llama": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2"} | dict.fromkeys(_GEMMAS, "default")


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """What to write. The defaults suit every tensor type (rows of 256) and take a few hundred kilobytes.

    Args:
        vocab: "bpe" or "spm"; empty takes the family's usual one.
        tied: no output.weight.
        embedding_std: deviation of token_embd; None is 1, or 1 / sqrt(hidden) for gemma3.
        head_gain: deviation of the logits, about, unless tied.
        rope_freqs: adds Llama 3's rope_freqs.weight.
        dense: width between two dense layers after the pooling; 0 for none.
        head_type: type of token_embd and output, if it differs from tensor_type.
        extra: more metadata, or replacements; None removes a key. Keys of the family begin with "{arch}.".
        skip: tensors to leave out.
    """

    family: str = "llama"
    tensor_type: TensorType = TensorType.Q8_0
    head_type: TensorType | None = None
    vocab: str = ""
    num_layers: int = 2
    hidden: int = 256
    intermediate: int = 512
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 64
    context_length: int = 2048
    sliding_window: int = 32
    tied: bool = False
    embedding_std: float | None = None
    head_gain: float = 3.0
    rope_freqs: bool = False
    dense: int = 0
    qkv_bias: bool | None = None
    seed: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    skip: frozenset[str] = frozenset()

    def metadata(self) -> dict[str, Any]:
        """All keys of the file but general.architecture."""
        kind = self.vocab or ("spm" if self.family in _GEMMAS else "bpe")
        values: dict[str, Any] = {
            "general.name": f"tiny {self.family}",
            "{arch}.context_length": self.context_length,
            "{arch}.embedding_length": self.hidden,
            "{arch}.block_count": self.num_layers,
            "{arch}.feed_forward_length": self.intermediate,
            "{arch}.attention.head_count": self.num_heads,
            "{arch}.attention.head_count_kv": self.num_kv_heads,
            "{arch}.attention.layer_norm_rms_epsilon": 1e-5 if self.family == "llama" else 1e-6,
            "{arch}.rope.freq_base": 10_000.0 if self.family == "llama" else 1_000_000.0,
        }
        if self.family in _GEMMAS:
            values |= {"{arch}.attention.sliding_window": self.sliding_window}
            values |= {"{arch}.attention.sliding_window_pattern": 2}  # local, global, local, ...
        if self.dense:
            values |= {"{arch}.dense_2_feat_in": self.hidden, "{arch}.dense_2_feat_out": self.dense}
            values |= {"{arch}.dense_3_feat_in": self.dense, "{arch}.dense_3_feat_out": self.hidden}
        if self.family in ("qwen3", *_GEMMAS) or self.head_dim * self.num_heads != self.hidden:
            values |= {"{arch}.attention.key_length": self.head_dim, "{arch}.attention.value_length": self.head_dim}
        if self.family == "llama":
            values |= {"{arch}.rope.dimension_count": self.head_dim}
        values |= bpe_metadata(_PRE_OF_FAMILY[self.family]) if kind == "bpe" else spm_metadata()
        values |= self.extra
        return {key.format(arch=self.family): value for key, value in values.items() if value is not None}

    @property
    def vocab_size(self) -> int:
        return len(self.metadata()["tokenizer.ggml.tokens"])


def write_tiny_gguf(path: Path, model: TinyModel | None = None, *, split_max_tensors: int = 0) -> Path:
    """Writes the file and returns its path; with `split_max_tensors`, files STEM-00001-of-0000N.gguf beside it."""
    model = model or TinyModel()
    tensors = (tensor for tensor in random_tensors(model) if tensor[0] not in model.skip)
    return write_gguf(path, model.family, model.metadata(), tensors, split_max_tensors=split_max_tensors)


def write_gguf(
    path: Path,
    family: str,
    metadata: Mapping[str, object],
    tensors: Iterable[tuple[str, TensorType, npt.NDArray[Any]]],
    *,
    split_max_tensors: int = 0,
) -> Path:
    """Writes the file by the reference writer and returns its path; quantised tensors come as their blocks' bytes."""
    writer = gguf.GGUFWriter(path, family, split_max_tensors=split_max_tensors)
    for key, value in metadata.items():
        add_value(writer, key, value)
    for name, tensor_type, data in tensors:
        if tensor_type is TensorType.F32:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType(int(tensor_type)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_tensors(model: TinyModel) -> Iterator[tuple[str, TensorType, npt.NDArray[Any]]]:
    """(name, type, data) of every tensor: matrices as u8[rows, row bytes], vectors as f32[n]."""
    rng = np.random.default_rng(model.seed)
    hidden, queries, keys = model.hidden, model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    is_gemma = model.family in _GEMMAS
    head_type = model.head_type or model.tensor_type

    def matrix(name: str, rows: int, cols: int, gain: float = 1.0) -> tuple[str, TensorType, npt.NDArray[Any]]:
        return _matrix(name, model.tensor_type, rows, cols, gain / math.sqrt(cols), rng)

    def vector(name: str, size: int, mean: float, std: float) -> tuple[str, TensorType, npt.NDArray[Any]]:
        values = mean + std * rng.standard_normal(size, dtype=np.float32)
        return name, TensorType.F32, values.astype(np.float32)

    embedding_std = model.embedding_std or (1 / math.sqrt(hidden) if is_gemma else 1.0)
    yield _matrix("token_embd.weight", head_type, model.vocab_size, hidden, embedding_std, rng)
    if model.dense:
        yield matrix("dense_2.weight", model.dense, hidden)
        yield matrix("dense_3.weight", hidden, model.dense)
    if model.rope_freqs:
        yield "rope_freqs.weight", TensorType.F32, np.geomspace(1, 8, model.head_dim // 2, dtype=np.float32)
    for layer in range(model.num_layers):
        block = f"blk.{layer}."
        yield vector(block + "attn_norm.weight", hidden, 1.0, 0.1)
        yield matrix(block + "attn_q.weight", queries, hidden, 1.5)
        yield matrix(block + "attn_k.weight", keys, hidden, 1.5)
        yield matrix(block + "attn_v.weight", keys, hidden)
        yield matrix(block + "attn_output.weight", hidden, queries)
        if model.family == "qwen2" if model.qkv_bias is None else model.qkv_bias:
            yield vector(block + "attn_q.bias", queries, 0.0, 0.5)
            yield vector(block + "attn_k.bias", keys, 0.0, 0.5)
            yield vector(block + "attn_v.bias", keys, 0.0, 0.2)
        if model.family in ("qwen3", *_GEMMAS):
            yield vector(block + "attn_q_norm.weight", model.head_dim, 1.2, 0.1)
            yield vector(block + "attn_k_norm.weight", model.head_dim, 1.2, 0.1)
        if is_gemma:
            yield vector(block + "post_attention_norm.weight", hidden, 0.7, 0.1)
            yield vector(block + "post_ffw_norm.weight", hidden, 0.7, 0.1)
        yield vector(block + "ffn_norm.weight", hidden, 1.0, 0.1)
        yield matrix(block + "ffn_gate.weight", model.intermediate, hidden, 1.5)
        yield matrix(block + "ffn_up.weight", model.intermediate, hidden, 1.5)
        yield matrix(block + "ffn_down.weight", hidden, model.intermediate)
    yield vector("output_norm.weight", hidden, 1.0, 0.1)
    if not model.tied:
        yield _matrix("output.weight", head_type, model.vocab_size, hidden, model.head_gain / math.sqrt(hidden), rng)


def _matrix(
    name: str, tensor_type: TensorType, rows: int, cols: int, std: float, rng: np.random.Generator
) -> tuple[str, TensorType, npt.NDArray[Any]]:
    data = random_matrix(tensor_type, rows, cols, std, rng)
    return name, tensor_type, data.view(np.float32) if tensor_type is TensorType.F32 else data


def add_value(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """As the type that real files have: u32, f32, string, array."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
