"""Qwen 3: queries and keys are normed per head instead of biased; the head size is the file's own."""

from __future__ import annotations

from corral.model.architectures.dense import read_base_config
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile
from corral.model.metadata import MetadataReader
from corral.model.tensors import BASE_LAYER_ROLES, QKV_BIASES


def read_config(gguf: GGUFFile) -> ModelConfig:
    return read_base_config(
        MetadataReader(gguf, "qwen3"),
        rope_style="half",
        required_roles=BASE_LAYER_ROLES | {"attn_q_norm", "attn_k_norm"},
        optional_roles=QKV_BIASES,
    )
