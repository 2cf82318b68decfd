"""Quantises a GGUF file of floats: the types that llama.cpp's mixtures of the same names give each tensor."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from corral import _native
from corral.errors import InvalidConfig, InvalidModelFile, UnsupportedModel
from corral.model import gguf_writer
from corral.model.gguf import GGUFFile, open_gguf
from corral.model.gguf_reader import TensorInfo
from corral.model.gguf_writer import NewTensor
from corral.model.tensor_type import TensorType

Progress = Callable[[int, int], None]  # (bytes of the source done, bytes in all)


@dataclass(frozen=True, slots=True)
class _Mixture:
    """What a kind writes: `base` for most matrices, `head` for the output, `more` where errors hurt most."""

    file_type: int  # general.file_type, llama.cpp's number
    base: TensorType
    head: TensorType
    more: TensorType
    qkv: TensorType  # of fused projections


T = TensorType
KINDS: dict[str, _Mixture] = {
    "Q4_0": _Mixture(2, T.Q4_0, T.Q6_K, T.Q4_0, T.Q4_0),
    "Q8_0": _Mixture(7, T.Q8_0, T.Q8_0, T.Q8_0, T.Q8_0),
    "Q4_K_M": _Mixture(15, T.Q4_K, T.Q6_K, T.Q6_K, T.Q5_K),
    "Q5_K_M": _Mixture(17, T.Q5_K, T.Q6_K, T.Q6_K, T.Q6_K),
    "Q6_K": _Mixture(18, T.Q6_K, T.Q6_K, T.Q6_K, T.Q6_K),
}
# For rows that are no multiple of 256: the next better type of 32-blocks.
_FALLBACKS = {T.Q4_K: T.Q5_0, T.Q5_K: T.Q5_1, T.Q6_K: T.Q8_0}
_KEPT = re.compile(r"(^|\.)(position_embd|token_types|rope_freqs|ffn_gate_inp)\.")
_LAYER = re.compile(r"blk\.(\d+)\.(.+)\.weight")
_SLAB_VALUES = 1 << 22
_QUANTIZATION_VERSION = 2


def check_kind(kind: str) -> str:
    """`kind` as KINDS writes it.

    Raises:
        InvalidConfig: there is no such kind; lists them.
    """
    if kind.upper() not in KINDS:
        raise InvalidConfig(f"{kind!r} is no quantisation that can be written; there are {', '.join(KINDS)}")
    return kind.upper()


def quantize_file(source: Path, target: Path, kind: str, on_progress: Progress | None = None) -> None:
    """Writes `source`, a GGUF file of F32, F16 or BF16 weights, to `target` as `kind`, one of KINDS.

    All keys stay but general.file_type and general.quantization_version. Vectors stay floats.

    Raises:
        InvalidConfig: no such kind.
        UnsupportedModel: `source` is quantised already.
        InvalidModelFile: `source` is damaged, or holds NaN or infinity.
        OSError: `target` cannot be written.
    """
    mixture = KINDS[check_kind(kind)]
    with open_gguf(source) as gguf:
        _check_is_float(gguf)
        plan = _plan(gguf, mixture)
        values = {key: gguf.raw_value(key) for key in gguf.metadata if not key.startswith("split.")}
        values.pop("general.alignment", None)  # ours is the default
        values["general.quantization_version"] = gguf_writer.uint32(_QUANTIZATION_VERSION)
        values["general.file_type"] = gguf_writer.uint32(mixture.file_type)
        total = sum(info.num_bytes for info in gguf.tensors.values())
        done = 0

        def pieces_of(tensor: NewTensor) -> Iterable[bytes | memoryview]:
            nonlocal done
            info = gguf.tensors[tensor.name]
            yield from _pieces(gguf, info, tensor.type)
            gguf.release(info)
            done += info.num_bytes
            if on_progress is not None:
                on_progress(done, total)

        gguf_writer.write_gguf(target, values, plan, pieces_of)


def _check_is_float(gguf: GGUFFile) -> None:
    for info in gguf.tensors.values():
        if not info.type.is_float:
            raise UnsupportedModel(
                f"{gguf.path.name} is quantised already ({info.name} is {info.type.name}): quantising twice loses "
                "twice. Start from an F16, BF16 or F32 file of the model"
            )


def _plan(gguf: GGUFFile, mixture: _Mixture) -> list[NewTensor]:
    is_tied = "output.weight" not in gguf.tensors
    layers = [match for name in gguf.tensors if (match := _LAYER.fullmatch(name))]
    num_layers = 1 + max((int(match[1]) for match in layers), default=0)
    return [
        NewTensor(info.name, _type_of(info, mixture, num_layers, is_tied), info.shape) for info in gguf.tensors.values()
    ]


def _type_of(info: TensorInfo, mixture: _Mixture, num_layers: int, is_tied: bool) -> TensorType:
    if len(info.shape) < 2 or not info.name.endswith(".weight") or "_norm" in info.name or _KEPT.search(info.name):
        return info.type
    wanted = _wanted_type(info.name, mixture, num_layers, is_tied)
    if info.shape[0] % wanted.block_size:
        wanted = _FALLBACKS.get(wanted, wanted)
    return TensorType.F16 if info.shape[0] % wanted.block_size else wanted


def _wanted_type(name: str, mixture: _Mixture, num_layers: int, is_tied: bool) -> TensorType:
    if name == "output.weight" or (is_tied and name == "token_embd.weight"):
        return mixture.head
    match = _LAYER.fullmatch(name)
    if match is None:
        return mixture.base
    if match[2] == "attn_qkv":
        return mixture.qkv
    if match[2] in ("attn_v", "ffn_down") and _deserves_more(int(match[1]), num_layers):
        return mixture.more
    return mixture.base


def _deserves_more(layer: int, num_layers: int) -> bool:
    """The first and last eighths of the layers, and every third one between."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def _pieces(gguf: GGUFFile, info: TensorInfo, to: TensorType) -> Iterator[bytes | memoryview]:
    """The tensor in its new type, a slab of rows at a time on each CPU."""
    if to == info.type:
        yield gguf.data(info)
        return
    row_bytes = info.type.row_bytes(info.shape[0])
    rows_of_slab = max(1, _SLAB_VALUES // info.shape[0])
    data = gguf.data(info)
    slabs = [
        data[begin * row_bytes : (begin + rows_of_slab) * row_bytes] for begin in range(0, info.rows, rows_of_slab)
    ]

    def convert(slab: memoryview) -> bytes:
        floats = _to_float32(slab, info.type).reshape(-1, info.shape[0])
        if to == TensorType.F16:
            return floats.astype(np.float16).tobytes()
        try:
            return _native.quantize(int(to), floats)
        except ValueError as error:
            raise InvalidModelFile(gguf.path, info.offset, f"tensor {info.name!r}: {error}") from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(convert, slabs)


def _to_float32(data: memoryview, tensor_type: TensorType) -> npt.NDArray[np.float32]:
    if tensor_type == TensorType.F32:
        return np.frombuffer(data, np.float32)
    if tensor_type == TensorType.F16:
        return np.frombuffer(data, np.float16).astype(np.float32)
    return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
