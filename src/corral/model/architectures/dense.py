"""What the dense decoder families share: their common keys, read and checked, as a plain ModelConfig."""

from __future__ import annotations

import math
from collections.abc import Iterable

from corral.errors import InvalidModelFile
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile
from corral.model.metadata import MetadataReader
from corral.model.rope import (
    DEFAULT_FREQ_BASE,
    MAX_CONTEXT,
    RopeScaling,
    make_rope_table,
    read_freq_factors,
    read_rope_scaling,
)
from corral.model.tensors import MODEL_TENSORS, Widths, assign_roles

MAX_LAYERS = 1024
MAX_HIDDEN = 1 << 18
MAX_INTERMEDIATE = 1 << 20
MAX_HEADS = 1 << 12
MAX_HEAD_DIM = 1 << 12
POOLINGS = {1: "mean", 2: "cls", 3: "last"}  # by `pooling_type`; 0 is none
RERANKER = 4


def read_base_config(
    reader: MetadataReader,
    *,
    rope_style: str,
    required_roles: Iterable[str],
    optional_roles: Iterable[str] = (),
    has_freq_factors: bool = False,
    is_causal: bool = True,
) -> ModelConfig:
    """A pre-norm decoder with grouped-query attention and a gated SiLU feed-forward, as the metadata says.

    Args:
        rope_style: "interleaved" or "half".
        required_roles, optional_roles: the tensors of each layer.
        has_freq_factors: the family's rope uses `rope_freqs.weight`.
        is_causal: where the metadata does not say.

    Raises:
        InvalidModelFile: a key is missing or out of range, or a tensor has the wrong shape.
        UnsupportedModel: a mixture of experts, or anything else the dense decoder does not compute.
    """
    refuse_experts(reader)
    is_causal = reader.boolean("attention.causal", default=is_causal)
    gguf = reader.gguf
    context_length = reader.integer("context_length", 1, MAX_CONTEXT)
    widths, num_heads = read_widths(reader)
    rope_dim = read_rope_dim(reader, widths.head)
    freq_base = reader.number("rope.freq_base", 1.0, 1e15, default=DEFAULT_FREQ_BASE, exclusive_low=True)
    scaling: RopeScaling = read_rope_scaling(reader, context_length)
    factors = read_freq_factors(gguf, rope_dim) if has_freq_factors else None
    if factors is None and "rope_freqs.weight" in gguf.tensors:
        reader.refuse(f"tensor 'rope_freqs.weight' is not known in the family {reader.architecture!r}")
    rope = make_rope_table(rope_dim, freq_base, scaling, factors)
    return ModelConfig(
        architecture=reader.architecture,
        name=display_name(gguf),
        context_length=context_length,
        tensor_roles=assign_roles(gguf, widths, required_roles, optional_roles),
        num_layers=widths.num_layers,
        hidden_size=widths.hidden,
        intermediate_size=widths.intermediate,
        num_heads=num_heads,
        num_kv_heads=widths.key // widths.head,
        head_dim=widths.head,
        vocab_size=widths.vocab,
        norm_eps=reader.number("attention.layer_norm_rms_epsilon", 0.0, 1.0, exclusive_low=True),
        rope_style=rope_style,
        rope_dim=rope_dim,
        inv_freq=rope.inv_freq,
        rope_attn_factor=rope.attn_factor,
        attn_scale=1.0 / math.sqrt(widths.head),
        layer_is_local=(False,) * widths.num_layers,
        is_causal=is_causal,
        pooling=read_pooling(reader, is_causal),
    )


def read_pooling(reader: MetadataReader, is_causal: bool) -> str | None:
    """How the file wants a text's vector to be made; None for a model that generates.

    A model without causal attention cannot generate: if its file names no pooling, the mean is taken.
    """
    pooling = reader.integer("pooling_type", 0, 4, default=0)
    if pooling == RERANKER:
        reader.refuse("it scores pairs of texts (pooling_type 4, a reranker), which is not supported")
    return POOLINGS.get(pooling, None if is_causal else "mean")


def refuse_experts(reader: MetadataReader) -> None:
    """Mixtures of experts share a family's name and are other models."""
    if num_experts := reader.integer("expert_count", 0, 1 << 16, default=0):
        reader.refuse(f"it is a mixture of {num_experts} experts; only dense models are supported")


def read_widths(reader: MetadataReader) -> tuple[Widths, int]:
    """All sizes, and the number of query heads."""
    num_layers = reader.integer("block_count", 1, MAX_LAYERS)
    hidden = reader.integer("embedding_length", 1, MAX_HIDDEN)
    intermediate = reader.uniform_integer("feed_forward_length", 1, MAX_INTERMEDIATE, num_layers)
    num_heads = reader.uniform_integer("attention.head_count", 1, MAX_HEADS, num_layers)
    num_kv_heads = reader.uniform_integer("attention.head_count_kv", 1, MAX_HEADS, num_layers, default=num_heads)
    if num_heads % num_kv_heads:
        reader.fail("attention.head_count_kv", f"is {num_kv_heads}, which does not divide the {num_heads} heads")
    if not reader.has("attention.key_length") and hidden % num_heads:
        reader.fail("attention.head_count", f"is {num_heads}, which does not divide the width {hidden}")
    head_dim = reader.integer("attention.key_length", 1, MAX_HEAD_DIM, default=max(1, hidden // num_heads))
    value_dim = reader.integer("attention.value_length", 1, MAX_HEAD_DIM, default=max(1, hidden // num_heads))
    if value_dim != head_dim:
        reader.refuse(f"its keys have {head_dim} dimensions and its values {value_dim}; only equal ones are supported")
    vocab = _read_vocab_size(reader.gguf)
    return Widths(num_layers, hidden, intermediate, num_heads * head_dim, num_kv_heads * head_dim, head_dim, vocab), (
        num_heads
    )


def read_rope_dim(reader: MetadataReader, head_dim: int) -> int:
    rope_dim = reader.integer("rope.dimension_count", 2, MAX_HEAD_DIM, default=head_dim)
    if rope_dim % 2:
        reader.fail("rope.dimension_count", f"is {rope_dim}; it must be even")
    if rope_dim != head_dim:
        reader.fail("rope.dimension_count", f"is {rope_dim}; this family rotates the whole head of {head_dim}")
    return rope_dim


def _read_vocab_size(gguf: GGUFFile) -> int:
    """Rows of the embedding, which the tokenizer must agree with."""
    name = MODEL_TENSORS["token_embd"]
    info = gguf.tensors.get(name)
    if info is None:
        raise InvalidModelFile(gguf.path, 0, f"tensor {name!r} is missing")
    num_tokens = gguf.array_length("tokenizer.ggml.tokens")
    if num_tokens not in (None, info.rows):
        raise InvalidModelFile(
            gguf.path,
            gguf.key_offsets["tokenizer.ggml.tokens"],
            f"tokenizer.ggml.tokens has {num_tokens} tokens, but {name!r} has {info.rows} rows",
        )
    return info.rows


def display_name(gguf: GGUFFile) -> str:
    name = gguf.metadata.get("general.name")
    text = name if isinstance(name, str) and name else gguf.path.stem
    return text.encode("utf-8", "replace").decode()
