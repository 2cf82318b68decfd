"""Qwen 2 and 2.5: Llama with biases on queries, keys and values, and rope over the halves of a head."""

from __future__ import annotations

from corral.model.architectures.dense import read_base_config
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile
from corral.model.metadata import MetadataReader
from corral.model.tensors import BASE_LAYER_ROLES, QKV_BIASES


def read_config(gguf: GGUFFile) -> ModelConfig:
    return read_base_config(
        MetadataReader(gguf, "qwen2"),
        rope_style="half",
        required_roles=BASE_LAYER_ROLES,
        optional_roles=QKV_BIASES,
    )
