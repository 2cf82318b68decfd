"""LoRA adapters in GGUF files: read, checked against the model they are for, and loaded into the native core.

Format (llama.cpp's convert_lora_to_gguf.py): general.type "adapter", adapter.type "lora", adapter.lora.alpha, and for
each matrix W of the base that it changes a pair NAME.lora_a [rank, cols] and NAME.lora_b [rows, rank], which make it
W + alpha / rank * B A; an alpha of 0 leaves out the factor.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from corral import _native
from corral.errors import InsufficientMemory, InvalidModelFile, UnsupportedModel
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile, TensorInfo, open_gguf
from corral.model.tensors import TensorRole

MAX_RANK = 1024  # of the native core
_ALPHA = "adapter.lora.alpha"
_ALORA = "adapter.alora.invocation_tokens"
_SUFFIXES = (".lora_a", ".lora_b")
_ADAPTABLE = frozenset(("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"))
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter in memory.

    Args:
        digest: SHA-256, in hex, of all that it does to a model: equal digests, equal answers.
        weights: in the native core.
    """

    digest: str
    weights: _native.Adapter

    @property
    def num_bytes(self) -> int:
        return self.weights.num_bytes


@dataclass(frozen=True, slots=True)
class _Pair:
    """What changes one matrix."""

    role: TensorRole
    a: TensorInfo
    b: TensorInfo
    rank: int
    scale: float


class AdapterFile:
    """A checked adapter file. Use it as a context manager."""

    def __init__(self, gguf: GGUFFile, config: ModelConfig, pairs: list[_Pair]) -> None:
        self._gguf = gguf
        self._config = config
        self._pairs = pairs

    @property
    def num_bytes(self) -> int:
        """Memory that it takes once loaded: the core keeps it in f32."""
        return sum(_FLOAT_BYTES * pair.rank * (pair.role.rows + pair.role.cols) for pair in self._pairs)

    def load(self) -> LoadedAdapter:
        """Reads the whole file.

        Raises:
            InsufficientMemory: the system gives no more memory.
            UnsupportedModel: the native core refuses it.
        """
        digest = hashlib.sha256()
        path = self._gguf.path
        try:
            weights = _native.Adapter(_native.DecoderConfig(**self._config.decoder_fields()))
            for pair in self._pairs:
                role, a, b = pair.role, self._gguf.data(pair.a), self._gguf.data(pair.b)
                head = f"{role.role} {role.layer} {pair.rank} {pair.a.type:d} {pair.b.type:d} ".encode()
                digest.update(head + struct.pack("<d", pair.scale))
                digest.update(a)
                digest.update(b)
                weights.add(
                    role.role, role.layer, pair.rank, role.rows, role.cols, pair.a.type, a, pair.b.type, b, pair.scale
                )
        except ValueError as error:
            raise UnsupportedModel(f"{path}: the native core refuses this adapter: {error}") from error
        except MemoryError as error:
            raise InsufficientMemory(f"{path}: the system gives no memory for this adapter") from error
        return LoadedAdapter(digest.hexdigest(), weights)

    def __enter__(self) -> AdapterFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._gguf.close()


def open_adapter(path: Path, config: ModelConfig) -> AdapterFile:
    """Opens the adapter at `path` and checks that it is for the model `config`.

    Raises:
        ModelNotFound: there is no such file.
        InvalidModelFile: not a GGUF file, damaged, hostile, or its tensors do not have the model's shapes.
        UnsupportedModel: no LoRA adapter, one for another family, or one that changes what Corral cannot adapt.
    """
    gguf = open_gguf(path)
    try:
        _check_kind(gguf, config)
        return AdapterFile(gguf, config, _read_pairs(gguf, config, _read_alpha(gguf)))
    except BaseException:
        gguf.close()
        raise


def _check_kind(gguf: GGUFFile, config: ModelConfig) -> None:
    kind = _text(gguf, "general.type")
    if kind != "adapter":
        raise UnsupportedModel(f"{gguf.path} is no adapter: its general.type is {kind!r:.80}, not 'adapter'")
    method = _text(gguf, "adapter.type")
    if method != "lora":
        raise UnsupportedModel(f"{gguf.path}: adapters of type {method!r:.80} are not supported; 'lora' is")
    family = _text(gguf, "general.architecture")
    if family != config.architecture:
        raise UnsupportedModel(
            f"{gguf.path} is an adapter for the family {family!r:.80}; {config.name!r:.80} is of the family "
            f"{config.architecture!r}"
        )
    if _ALORA in gguf.metadata:
        raise UnsupportedModel(
            f"{gguf.path}: it has {_ALORA}: adapters that begin to work at certain tokens are not supported"
        )


def _text(gguf: GGUFFile, key: str) -> str:
    value: Any = gguf.metadata.get(key)
    if not isinstance(value, str):
        raise InvalidModelFile(gguf.path, gguf.key_offsets.get(key, 0), f"{key} is missing or not a string")
    return value


def _read_alpha(gguf: GGUFFile) -> float:
    value: Any = gguf.metadata.get(_ALPHA, 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidModelFile(gguf.path, gguf.key_offsets[_ALPHA], f"{_ALPHA} must be a finite number")
    return float(value)


def _read_pairs(gguf: GGUFFile, config: ModelConfig, alpha: float) -> list[_Pair]:
    """In the order of the model's layers and roles, so that the digest does not depend on the file's."""
    halves: dict[str, dict[str, TensorInfo]] = {}
    for info in gguf.tensors.values():
        base, suffix = info.name[:-7], info.name[-7:]
        if suffix not in _SUFFIXES:
            raise UnsupportedModel(
                f"{gguf.path}: tensor {info.name!r} is no part of a pair NAME.lora_a and NAME.lora_b; adapters that "
                "replace tensors whole are not supported"
            )
        halves.setdefault(base, {})[suffix] = info
    if not halves:
        raise InvalidModelFile(gguf.path, 0, "the adapter has no tensors")
    pairs = [_read_pair(gguf, config, base, found, alpha) for base, found in halves.items()]
    return sorted(pairs, key=lambda pair: (pair.role.layer, pair.role.role))


def _read_pair(gguf: GGUFFile, config: ModelConfig, base: str, halves: dict[str, TensorInfo], alpha: float) -> _Pair:
    role = config.tensor_roles.get(base)
    some = next(iter(halves.values()))
    if role is None:
        raise UnsupportedModel(f"{gguf.path}: tensor {some.name!r} is for {base!r}, which {config.name!r:.80} has not")
    if role.role not in _ADAPTABLE:
        raise UnsupportedModel(
            f"{gguf.path}: tensor {some.name!r} changes {base!r}; only the layers' {', '.join(sorted(_ADAPTABLE))} can "
            "be adapted. Merge the adapter into the model instead"
        )
    for suffix in _SUFFIXES:
        if suffix not in halves:
            raise InvalidModelFile(gguf.path, some.offset, f"tensor {some.name!r} has no {base + suffix!r} beside it")
    a, b = (halves[suffix] for suffix in _SUFFIXES)
    shape_a = a.shape if len(a.shape) > 1 else (*a.shape, 1)
    rank = shape_a[1]
    if rank > MAX_RANK:
        _refuse(gguf, a, f"has rank {rank}; at most {MAX_RANK} are allowed")
    if _cut(shape_a, 2) != (role.cols, rank):
        _refuse(gguf, a, f"has shape {list(a.shape)}; {base!r} has {role.cols} inputs, which asks for [{role.cols}, r]")
    if _cut(b.shape, 2) != (rank, role.rows):
        _refuse(
            gguf,
            b,
            f"has shape {list(b.shape)}; {role.rows} outputs of {base!r} and the rank {rank} of its lora_a ask for "
            f"{[rank, role.rows]}",
        )
    return _Pair(role, a, b, rank, alpha / rank if alpha else 1.0)


def _cut(shape: tuple[int, ...], num_dims: int) -> tuple[int, ...]:
    """Without the trailing dimensions of 1 that some writers keep."""
    while len(shape) > num_dims and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _refuse(gguf: GGUFFile, info: TensorInfo, fault: str) -> NoReturn:
    raise InvalidModelFile(gguf.paths[info.part], info.offset, f"tensor {info.name!r} {fault}")
