"""BERT: all-MiniLM, bge, mxbai-embed, snowflake-arctic-embed and their relatives. Positions are learned."""

from __future__ import annotations

from corral.model.architectures.encoder import read_encoder_config
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile
from corral.model.metadata import MetadataReader
from corral.model.tensors import QKV_BIASES


def read_config(gguf: GGUFFile) -> ModelConfig:
    return read_encoder_config(
        MetadataReader(gguf, "bert"),
        required_roles=("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"),
        optional_roles=QKV_BIASES | {"attn_output_bias", "ffn_up_bias", "ffn_down_bias"},
        has_positions=True,
    )
