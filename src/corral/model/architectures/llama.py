"""Llama 2 and 3, Mistral, SmolLM2, TinyLlama and their relatives: `general.architecture` = "llama".

The converter has permuted queries and keys so that rope rotates neighbours. Llama 3's stretched rope comes as the
tensor rope_freqs.weight. As in llama.cpp, `attention.sliding_window` (Mistral 7B v0.1) is not applied.
"""

from __future__ import annotations

from corral.model.architectures.dense import read_base_config
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile
from corral.model.metadata import MetadataReader
from corral.model.tensors import BASE_LAYER_ROLES, QKV_BIASES


def read_config(gguf: GGUFFile) -> ModelConfig:
    return read_base_config(
        MetadataReader(gguf, "llama"),
        rope_style="interleaved",
        required_roles=BASE_LAYER_ROLES,
        optional_roles=QKV_BIASES | {"attn_output_bias"},
        has_freq_factors=True,
    )
