"""Gemma 3: norms before and after each block, q/k norm, GeGLU, and five sliding-window layers to a global one.

Local layers have their own rope base and no scaling. The norm weights in GGUF already hold Gemma's "+ 1".
Facts: Gemma 3 technical report; gemma_pytorch config.py; llama.cpp for the defaults of missing keys.
"""

from __future__ import annotations

import dataclasses
import math

from corral.errors import InvalidModelFile
from corral.model.architectures.dense import MAX_HIDDEN, read_base_config
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile
from corral.model.metadata import MetadataReader
from corral.model.rope import DEFAULT_FREQ_BASE, MAX_CONTEXT, RopeScaling, make_rope_table, read_rope_scaling
from corral.model.tensors import BASE_LAYER_ROLES, NO_LAYER, TensorRole

DEFAULT_PERIOD = 6  # five local layers, then a global one
DENSE_NAMES = (("dense_2.weight", "dense_3.weight"), ("dense.0.weight", "dense.1.weight"))  # llama.cpp's, Ollama's
LAYERS_OF_27B = 62  # the one size whose queries are scaled by the width over the heads


def read_config(gguf: GGUFFile) -> ModelConfig:
    return _read(MetadataReader(gguf, "gemma3"), is_causal=True)


def read_embedding_config(gguf: GGUFFile) -> ModelConfig:
    """EmbeddingGemma: the same layers, and every token sees those on both sides of it."""
    return _read(MetadataReader(gguf, "gemma-embedding"), is_causal=False)


def _read(reader: MetadataReader, *, is_causal: bool) -> ModelConfig:
    dense = _read_dense(reader)
    base = read_base_config(
        reader,
        rope_style="half",
        is_causal=is_causal,
        others=dense,
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
        dense_size=next((role.rows for role in dense.values() if role.role == "dense_2"), 0),
    )
    if dense and not config.is_embedding:
        reader.refuse("it has dense layers after a pooling that it does not name")
    return _with_window(reader, config)


def _read_dense(reader: MetadataReader) -> dict[str, TensorRole]:
    """EmbeddingGemma's two layers after the pooling, without activation between; empty if the file has none."""
    tensors = reader.gguf.tensors
    for names in DENSE_NAMES:
        present = [name for name in names if name in tensors]
        if not present:
            continue
        if len(present) == 1:
            missing = next(name for name in names if name not in tensors)
            raise InvalidModelFile(reader.gguf.path, 0, f"tensor {missing!r} is missing; it follows the pooling")
        hidden, inner = reader.integer("embedding_length", 1, MAX_HIDDEN), tensors[names[0]].rows
        return {
            names[0]: TensorRole("dense_2", NO_LAYER, inner, hidden),
            names[1]: TensorRole("dense_3", NO_LAYER, hidden, inner),
        }
    return {}


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
