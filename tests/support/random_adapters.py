"""Random LoRA adapters for the tiny models, in files as llama.cpp's converter writes them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from tests.support.gguf_writer import TinyModel, add_value
from tests.support.random_models import FAMILY_MODELS, TYPE_MODELS, zoo_model

F32 = npt.NDArray[np.float32]

ALL_ROLES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True, kw_only=True)
class TinyAdapter:
    """What to write.

    Args:
        base: the model it is for.
        alpha: None leaves the key out.
        gain: deviation of what it adds to an output, about, if the input's is 1.
        dtype: of the tensors, "f4" or "f2".
        extra: more metadata, or replacements; None removes a key.
        skip: tensors to leave out.
    """

    base: TinyModel
    rank: int = 4
    alpha: float | None = 8.0
    roles: tuple[str, ...] = ALL_ROLES
    gain: float = 0.5
    dtype: str = "f4"
    seed: int = 0
    extra: tuple[tuple[str, object], ...] = ()
    skip: frozenset[str] = frozenset()

    @property
    def scale(self) -> float:
        return self.alpha / self.rank if self.alpha else 1.0


# Name of a golden -> key of the zoo, and the adapter. Of each family, and over quantised weights.
ADAPTERS: dict[str, tuple[str, TinyAdapter]] = {
    "lora-llama": ("llama", TinyAdapter(base=FAMILY_MODELS["llama"], rank=16, dtype="f2")),
    "lora-qwen2": ("qwen2", TinyAdapter(base=FAMILY_MODELS["qwen2"], rank=7, roles=("attn_q", "attn_v"))),
    "lora-qwen3": ("qwen3", TinyAdapter(base=FAMILY_MODELS["qwen3"], rank=4, alpha=None)),
    "lora-gemma3": ("gemma3", TinyAdapter(base=FAMILY_MODELS["gemma3"], rank=1, alpha=0.5)),
    "lora-type-q8_0": ("type-q8_0", TinyAdapter(base=TYPE_MODELS["q8_0"], rank=8)),
    "lora-type-q4_k": ("type-q4_k", TinyAdapter(base=TYPE_MODELS["q4_k"], rank=32, alpha=16.0)),
}


def write_zoo_adapter(name: str, folder: Path) -> Path:
    """Writes `name`, a key of ADAPTERS, into `folder`."""
    zoo_name, adapter = ADAPTERS[name]
    seeded = replace(adapter, base=zoo_model(zoo_name), seed=zlib.crc32(name.encode()))
    return write_tiny_adapter(folder / f"{name}.adapter.gguf", seeded)


def adapter_pairs(adapter: TinyAdapter) -> Iterator[tuple[str, F32, F32]]:
    """(name of the base's tensor, A [rank, cols], B [rows, rank]), rounded to the file's type."""
    base, rank = adapter.base, adapter.rank
    rng = np.random.default_rng(adapter.seed)
    queries, keys = base.num_heads * base.head_dim, base.num_kv_heads * base.head_dim
    shapes = {
        "attn_q": (queries, base.hidden),
        "attn_k": (keys, base.hidden),
        "attn_v": (keys, base.hidden),
        "attn_output": (base.hidden, queries),
        "ffn_gate": (base.intermediate, base.hidden),
        "ffn_up": (base.intermediate, base.hidden),
        "ffn_down": (base.hidden, base.intermediate),
    }
    for layer in range(base.num_layers):
        for role in adapter.roles:
            rows, cols = shapes[role]
            a = rng.standard_normal((rank, cols), dtype=np.float32) / np.float32(math.sqrt(cols))
            b = rng.standard_normal((rows, rank), dtype=np.float32)
            b *= np.float32(adapter.gain / (adapter.scale * math.sqrt(rank)))
            rounded = (values.astype(adapter.dtype).astype(np.float32) for values in (a, b))
            yield f"blk.{layer}.{role}.weight", *rounded  # type: ignore[misc]  # two of them


def write_tiny_adapter(path: Path, adapter: TinyAdapter) -> Path:
    """Writes the file and returns its path."""
    writer = gguf.GGUFWriter(path, adapter.base.family)
    values = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": adapter.alpha}
    for key, value in (values | dict(adapter.extra)).items():
        if value is not None:
            add_value(writer, key, value)
    for name, a, b in adapter_pairs(adapter):
        for suffix, data in ((".lora_a", a), (".lora_b", b)):
            if name + suffix not in adapter.skip:
                writer.add_tensor(name + suffix, data.astype(adapter.dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
