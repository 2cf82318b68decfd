"""The model families: one file each, and the table that finds them."""

from __future__ import annotations

from collections.abc import Callable

from corral.errors import InvalidModelFile, UnsupportedModel
from corral.model.architectures import bert, gemma3, llama, nomic_bert, qwen2, qwen3
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile

ARCHITECTURES: dict[str, Callable[[GGUFFile], ModelConfig]] = {
    "llama": llama.read_config,
    "qwen2": qwen2.read_config,
    "qwen3": qwen3.read_config,
    "gemma3": gemma3.read_config,
    "gemma-embedding": gemma3.read_embedding_config,
    "bert": bert.read_config,
    "nomic-bert": nomic_bert.read_config,
}


def read_config(gguf: GGUFFile) -> ModelConfig:
    """The checked description of the model in `gguf`.

    Raises:
        InvalidModelFile: a key is missing or out of range, or a tensor is missing or of the wrong shape.
        UnsupportedModel: a family or variant that Corral does not know.
    """
    architecture = gguf.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        offset = gguf.key_offsets.get("general.architecture", 0)
        raise InvalidModelFile(gguf.path, offset, "general.architecture is missing or not a string")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnsupportedModel(f"{gguf.path}: the family {architecture!r:.80} is not supported; known are {known}")
    return ARCHITECTURES[architecture](gguf)
