"""Tiny random-weight models that embed, each made from a seed, and llama.cpp's vectors for them."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from corral.model.tensor_type import TensorType
from tests.support.encoder_writer import TinyEncoder, write_tiny_encoder
from tests.support.gguf_writer import TinyModel, write_tiny_gguf

GOLDEN_FILE = Path(__file__).parent.parent / "golden" / "embeddings.npz"
PROMPT_LENGTHS = (1, 17, 300, 500)
_FLOATS = TinyModel(tensor_type=TensorType.F32)
_GEMMA = replace(
    _FLOATS,
    family="gemma-embedding",
    num_layers=7,
    num_kv_heads=1,
    sliding_window=64,
    tied=True,
    extra={"{arch}.pooling_type": 1, "{arch}.attention.sliding_window_pattern": None},
)
EMBEDDING_ZOO: dict[str, TinyEncoder | TinyModel] = {
    "bert-mean": TinyEncoder(),
    "bert-cls": TinyEncoder(pooling=2, fused=True),
    "bert-f16": TinyEncoder(tensor_type=TensorType.F16, hidden=96, intermediate=100, num_heads=3),
    "bert-q8_0": TinyEncoder(tensor_type=TensorType.Q8_0, hidden=384, intermediate=1536, num_heads=12),
    "bert-q4_k": TinyEncoder(tensor_type=TensorType.Q4_K),
    "nomic": TinyEncoder(family="nomic-bert"),
    "nomic-q4_0": TinyEncoder(
        family="nomic-bert", tensor_type=TensorType.Q4_0, hidden=320, intermediate=544, num_heads=5
    ),
    "qwen3-last": replace(_FLOATS, family="qwen3", extra={"{arch}.pooling_type": 3}),
    "llama-mean": replace(_FLOATS, extra={"{arch}.pooling_type": 1}),
    "llama-generates": _FLOATS,
    "gemma-embedding": _GEMMA,
    "gemma-dense": replace(_GEMMA, dense=320),
    "gemma-dense-q8_0": replace(_GEMMA, dense=320, tensor_type=TensorType.Q8_0),
}
IS_FLOAT = {name: model.tensor_type.is_float for name, model in EMBEDDING_ZOO.items()}


def pooling_of(name: str) -> str:
    """How the model `name` pools."""
    return {"bert-cls": "cls", "qwen3-last": "last", "llama-generates": "last"}.get(name, "mean")


def write_embedding_model(name: str, folder: Path) -> Path:
    """Writes `name`, a key of EMBEDDING_ZOO, into `folder`."""
    model = replace(EMBEDDING_ZOO[name], seed=zlib.crc32(name.encode()))
    path = folder / f"{name}.gguf"
    return write_tiny_encoder(path, model) if isinstance(model, TinyEncoder) else write_tiny_gguf(path, model)


def prompts_of(name: str) -> list[list[int]]:
    """A prompt of each of PROMPT_LENGTHS, the same every time."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    vocab_size = EMBEDDING_ZOO[name].vocab_size
    return [[int(i) for i in rng.integers(0, vocab_size, length)] for length in PROMPT_LENGTHS]


def save_golden(engine: str, vectors: dict[str, tuple[str, list[npt.NDArray[np.float32]]]]) -> None:
    """Writes GOLDEN_FILE: for each model the digest of its file and the vectors of its prompts."""
    info = {"engine": engine, "digests": {name: digest for name, (digest, _) in vectors.items()}}
    arrays = {name: np.stack(rows) for name, (_, rows) in vectors.items()}
    header = np.frombuffer(json.dumps(info).encode(), np.uint8)
    np.savez_compressed(GOLDEN_FILE, info=header, **arrays)  # type: ignore[arg-type]  # the stub takes names for flags


def load_golden(name: str) -> tuple[str, npt.NDArray[np.float32]]:
    """The digest of the model's file and f32[prompts, hidden]."""
    with np.load(GOLDEN_FILE, allow_pickle=False) as arrays:
        digest: str = json.loads(arrays["info"].tobytes())["digests"][name]
        return digest, arrays[name]
