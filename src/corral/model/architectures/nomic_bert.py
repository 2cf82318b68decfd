"""Nomic's BERT (nomic-embed-text v1 and v1.5): rope over the halves of a head, and a gated SiLU feed-forward."""

from __future__ import annotations

import dataclasses

from corral.model.architectures.dense import read_rope_dim
from corral.model.architectures.encoder import read_encoder_config
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile
from corral.model.metadata import MetadataReader
from corral.model.rope import DEFAULT_FREQ_BASE, make_rope_table, read_rope_scaling
from corral.model.tensors import QKV_BIASES


def read_config(gguf: GGUFFile) -> ModelConfig:
    reader = MetadataReader(gguf, "nomic-bert")
    config = read_encoder_config(
        reader,
        required_roles=("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"),
        optional_roles=QKV_BIASES | {"attn_output_bias", "ffn_up_bias", "ffn_down_bias"},
        has_positions=False,
    )
    rope_dim = read_rope_dim(reader, config.head_dim)
    freq_base = reader.number("rope.freq_base", 1.0, 1e15, default=DEFAULT_FREQ_BASE, exclusive_low=True)
    rope = make_rope_table(rope_dim, freq_base, read_rope_scaling(reader, config.context_length))
    return dataclasses.replace(
        config,
        activation="silu",
        is_gated=True,
        rope_dim=rope_dim,
        inv_freq=rope.inv_freq,
        rope_attn_factor=rope.attn_factor,
    )
