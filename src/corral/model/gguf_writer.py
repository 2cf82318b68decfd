"""Writes GGUF files, version 3: keys and values first, then tensors one by one, so that memory holds one at most."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from corral.model.gguf_reader import DEFAULT_ALIGNMENT, MAGIC
from corral.model.tensor_type import TensorType

VERSION = 3

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor to be written; `shape` in ggml's order, the row length first."""

    name: str
    type: TensorType
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        num_rows = 1
        for size in self.shape[1:]:
            num_rows *= size
        return self.type.row_bytes(self.shape[0]) * num_rows


def write_gguf(
    path: Path,
    values: Mapping[str, bytes],
    tensors: Sequence[NewTensor],
    pieces_of: Callable[[NewTensor], Iterable[Buffer]],
) -> None:
    """Writes a whole file.

    Args:
        values: key -> type and value, of `uint32` and its like, or of GGUFFile.raw_value; no general.alignment.
        pieces_of: the bytes of a tensor, in pieces; called for each in order.

    Raises:
        ValueError: the pieces of a tensor are not as many bytes as it needs.
        OSError: the file cannot be written.
    """
    with path.open("wb") as file:
        file.write(MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(values)))
        for key, value in values.items():
            file.write(_text(key) + value)
        offset = 0
        for tensor in tensors:
            dimensions = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
            file.write(_text(tensor.name) + dimensions + struct.pack("<IQ", int(tensor.type), offset))
            offset += tensor.num_bytes + _padding(tensor.num_bytes)
        _pad(file)
        for tensor in tensors:
            num_bytes = sum(file.write(piece) for piece in pieces_of(tensor))
            if num_bytes != tensor.num_bytes:
                raise ValueError(f"{tensor.name} came to {num_bytes} bytes; it has {tensor.num_bytes}")
            _pad(file)


def _pad(file: BinaryIO) -> None:
    file.write(bytes(_padding(file.tell())))


def _padding(offset: int) -> int:
    return -offset % DEFAULT_ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


# Values, each with its type in front.


def uint32(value: int) -> bytes:
    return struct.pack("<II", 4, value)


def float32(value: float) -> bytes:
    return struct.pack("<If", 6, value)


def boolean(value: bool) -> bytes:
    return struct.pack("<IB", 7, value)


def string(value: str) -> bytes:
    return struct.pack("<I", 8) + _text(value)


def string_array(values: Sequence[str]) -> bytes:
    return struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(_text, values))


def int32_array(values: Sequence[int]) -> bytes:
    return struct.pack(f"<IIQ{len(values)}i", 9, 5, len(values), *values)


def float32_array(values: Sequence[float]) -> bytes:
    return struct.pack(f"<IIQ{len(values)}f", 9, 6, len(values), *values)


def boolean_array(values: Sequence[bool]) -> bytes:
    return struct.pack(f"<IIQ{len(values)}B", 9, 7, len(values), *values)
