"""Gemma 3: norms before and after each block, q/k norm, GeGLU, and five sliding-window layers to a global one.

Local layers have their own rope base and no scaling. The norm weights in GGUF already hold Gemma's "+ 1".
Facts: Gemma 3 technical report; gemma_pytorch config.py; llama.cpp for the defaults of missing keys.
"""

from __future__ import annotations

import dataclasses
import math

from corral.model.architectures.dense import read_base_config
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile
from corral.model.metadata import MetadataReader
from corral.model.rope import DEFAULT_FREQ_BASE, MAX_CONTEXT, RopeScaling, make_rope_table, read_rope_scaling
from corral.model.tensors import BASE_LAYER_ROLES

DEFAULT_PERIOD = 6  # five local layers, then a global one
LAYERS_OF_27B = 62  # the one size whose queries are scaled by the width over the heads


def read_config(gguf: GGUFFile) -> ModelConfig:
    return _read(MetadataReader(gguf, "gemma3"), is_causal=True)


def read_embedding_config(gguf: GGUFFile) -> ModelConfig:
    """EmbeddingGemma: the same layers, and every token sees those on both sides of it."""
    return _read(MetadataReader(gguf, "gemma-embedding"), is_causal=False)


def _read(reader: MetadataReader, *, is_causal: bool) -> ModelConfig:
    base = read_base_config(
        reader,
        rope_style="half",
        is_causal=is_causal,
        required_roles=BASE_LAYER_ROLES | {"attn_q_norm", "attn_k_norm", "attn_post_norm", "ffn_post_norm"},
    )
    if read_rope_scaling(reader, base.context_length).kind == "yarn":
        reader.refuse(f"rope scaling 'yarn' is not known in the family {reader.architecture!r}; known are none, linear")
    is_27b = base.num_layers == LAYERS_OF_27B
    query_scale = base.hidden_size // base.num_heads if is_27b else base.head_dim
    config = dataclasses.replace(
        base,
        activation="gelu_tanh",
        attn_scale=1.0 / math.sqrt(query_scale),
        embedding_scale=math.sqrt(base.hidden_size),
        logit_softcap=reader.number("final_logit_softcapping", 0.0, 1e6, default=0.0),
    )
    return _with_window(reader, config)


def _with_window(reader: MetadataReader, config: ModelConfig) -> ModelConfig:
    window = reader.integer("attention.sliding_window", 0, MAX_CONTEXT, default=0)
    if window == 0:
        return config
    local_base = reader.number("rope.freq_base_swa", 1.0, 1e15, default=DEFAULT_FREQ_BASE, exclusive_low=True)
    local_rope = make_rope_table(config.rope_dim, local_base, RopeScaling())
    return dataclasses.replace(
        config,
        sliding_window=window,
        layer_is_local=_read_pattern(reader, config.num_layers),
        local_inv_freq=local_rope.inv_freq,
    )


def _read_pattern(reader: MetadataReader, num_layers: int) -> tuple[bool, ...]:
    """Which layers are local: the key may be the period, or one claim for each layer."""
    name = "attention.sliding_window_pattern"
    pattern = reader.gguf.metadata.get(reader.key(name))
    if not isinstance(pattern, list):
        period = reader.integer(name, 0, 1 << 16, default=DEFAULT_PERIOD)
        return tuple(period == 0 or layer % period < period - 1 for layer in range(num_layers))
    if len(pattern) != num_layers or not all(isinstance(item, bool | int) for item in pattern):
        reader.fail(name, f"is an array of {len(pattern)}; {num_layers} layers need one truth value each")
    return tuple(bool(item) for item in pattern)
