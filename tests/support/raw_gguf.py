"""GGUF files built byte by byte, so that every field can lie."""

from __future__ import annotations

import struct
from collections.abc import Sequence

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
HEADER_BYTES = 24  # magic, version, two counts: the first key or tensor begins here


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(text: bytes, length: int | None = None) -> bytes:
    """A length, true or not, and the bytes."""
    return u64(len(text) if length is None else length) + text


def key(name: bytes, value_type: int, payload: bytes) -> bytes:
    return string(name) + u32(value_type) + payload


def array(element_type: int, count: int, payload: bytes = b"") -> bytes:
    """What follows the value type ARRAY."""
    return u32(element_type) + u64(count) + payload


def tensor(
    name: bytes = b"t", shape: Sequence[int] = (32,), type_id: int = 0, offset: int = 0, num_dims: int | None = None
) -> bytes:
    """One row of the tensor table; the default is 128 bytes of F32."""
    dims = b"".join(u64(size) for size in shape)
    return string(name) + u32(len(shape) if num_dims is None else num_dims) + dims + u32(type_id) + u64(offset)


def gguf_file(
    keys: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    num_keys: int | None = None,
    num_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A file; the counts are the true ones unless given. `data` follows the padding."""
    header = magic + u32(version)
    header += u64(len(tensors) if num_tensors is None else num_tensors)
    header += u64(len(keys) if num_keys is None else num_keys)
    header += b"".join(keys) + b"".join(tensors)
    if data:
        header += bytes(-len(header) % alignment)
    return header + data
