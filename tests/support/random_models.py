"""The zoo: tiny random-weight models of every family, rope scaling and tensor type, each made from a seed.

The goldens of tests/golden/logits hold the digest of each file, so a writer that drifts is noticed before its logits.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from corral.model.tensor_type import TensorType
from tests.support.gguf_writer import TinyModel, write_tiny_gguf

# Logits of deviation 1: the best token leads by more than 0.1 in most positions, and by more than rounding shifts it.
_FLOATS = TinyModel(tensor_type=TensorType.F32, head_gain=1.0)
# Windows end inside a block of 16, and are shorter than the prompts of 300 and 1,500 tokens.
_GEMMA = replace(_FLOATS, family="gemma3", num_layers=7, num_kv_heads=1, sliding_window=40, tied=True)
# Families in f32: what differs from llama.cpp there is the decoder's shape, not rounding.
FAMILY_MODELS = {
    "llama": replace(_FLOATS, num_layers=3),
    "llama-tied": replace(_FLOATS, tied=True, embedding_std=1 / 16, num_kv_heads=4),
    "llama-rope-freqs": replace(_FLOATS, rope_freqs=True),
    "llama-linear": replace(_FLOATS, extra={"{arch}.rope.scaling.type": "linear", "{arch}.rope.scaling.factor": 4.0}),
    "llama-yarn": replace(
        _FLOATS,
        extra={
            "{arch}.rope.scaling.type": "yarn",
            "{arch}.rope.scaling.factor": 4.0,
            "{arch}.rope.scaling.original_context_length": 512,
        },
    ),
    "qwen2": replace(_FLOATS, family="qwen2", num_kv_heads=1),
    "qwen3": replace(_FLOATS, family="qwen3", head_dim=128),
    "gemma3": replace(_GEMMA, extra={"{arch}.attention.sliding_window_pattern": None}),
    "gemma3-linear": replace(
        _GEMMA,
        tied=False,
        sliding_window=100,
        extra={"{arch}.rope.scaling.type": "linear", "{arch}.rope.scaling.factor": 8.0},
    ),
}
# Rows of 320 are no multiple of 256: types with blocks of 32, and floats, must stand that.
TYPE_MODELS = {
    tensor_type.name.lower(): replace(_FLOATS, tensor_type=tensor_type)
    if tensor_type.block_size == 256
    else replace(_FLOATS, tensor_type=tensor_type, hidden=320, intermediate=544, num_heads=5, num_kv_heads=1)
    for tensor_type in TensorType
}
ZOO = FAMILY_MODELS | {f"type-{name}": model for name, model in TYPE_MODELS.items()}
PROMPT_LENGTHS = (1, 17, 300, 1500)


def zoo_model(name: str) -> TinyModel:
    """The model `name`, a key of ZOO, with a seed of its own."""
    return replace(ZOO[name], seed=zlib.crc32(name.encode()))


def write_zoo_model(name: str, folder: Path) -> Path:
    """Writes `name`, a key of ZOO, into `folder`."""
    return write_tiny_gguf(folder / f"{name}.gguf", zoo_model(name))


def random_prompt(name: str, length: int) -> list[int]:
    """`length` token ids of the model `name`, the same every time."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), length])
    return [int(token_id) for token_id in rng.integers(0, zoo_model(name).vocab_size, length)]


def file_digest(path: Path) -> str:
    """SHA-256 of the file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
