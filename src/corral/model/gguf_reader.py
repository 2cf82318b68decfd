"""Parses and checks the header of one GGUF file: every length, count, type and offset before its use.

Layout (little endian): magic "GGUF", u32 version, u64 tensor count, u64 key count, the key-value pairs, the tensor
table, padding to `general.alignment`, tensor data. Strings are a u64 length and UTF-8 bytes.
Source: the GGUF specification (ggml, docs/gguf.md), versions 2 and 3.
"""

from __future__ import annotations

import itertools
import math
import mmap
import struct
from dataclasses import dataclass
from typing import Any

from corral._native import StringTable
from corral.errors import UnsupportedModel
from corral.model.gguf_cursor import (
    MAX_ARRAY_ELEMENTS,
    MAX_DIMENSIONS,
    MAX_KEY_BYTES,
    MAX_KEYS,
    MAX_STRING_BYTES,
    MAX_TENSOR_NAME_BYTES,
    MAX_TENSORS,
    Cursor,
)
from corral.model.tensor_type import SUPPORTED_TYPES, UNSUPPORTED_TYPE_NAMES, TensorType, known_type_names

MAGIC = b"GGUF"
KNOWN_VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

_BOOL, _STRING, _ARRAY = 7, 8, 9
# GGUF value type -> (struct code, bytes)
_NUMBERS: dict[int, tuple[str, int]] = {
    0: ("B", 1),
    1: ("b", 1),
    2: ("H", 2),
    3: ("h", 2),
    4: ("I", 4),
    5: ("i", 4),
    6: ("f", 4),
    _BOOL: ("B", 1),
    10: ("Q", 8),
    11: ("q", 8),
    12: ("d", 8),
}
_UINT32 = 4
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_MIN_KEY_BYTES = 8 + 1 + 4 + 1  # name length, a one-byte name, value type, the smallest value
_MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8  # name length, dimension count, one dimension, type, offset


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies and what it is. Made by the reader only, so its range is known to be inside the file."""

    name: str
    type: TensorType
    shape: tuple[int, ...]  # ggml order: shape[0] is the row length K
    part: int  # index of the split file that holds it
    offset: int  # of its first byte in that file
    num_bytes: int

    @property
    def rows(self) -> int:
        return math.prod(self.shape[1:])


@dataclass(frozen=True, slots=True)
class Header:
    """The checked header of one file."""

    version: int
    metadata: dict[str, Any]
    key_offsets: dict[str, int]  # where the type and value of a key begin
    metadata_end: int  # where the last value ends
    tensors: dict[str, TensorInfo]


def read_header(path: str, data: mmap.mmap, part: int = 0) -> Header:
    """Parses the header in `data`, the whole file as a read-only map.

    Raises:
        InvalidModelFile: no GGUF file, or damaged or hostile; names the offset of the fault.
        UnsupportedModel: a byte order, version or tensor type that Corral does not read.
    """
    cursor = Cursor(path, data)
    version = _read_version(cursor)
    num_tensors, num_keys = _read_counts(cursor)
    metadata, key_offsets = _read_metadata(cursor, num_keys)
    metadata_end = cursor.offset
    alignment = _alignment(cursor, metadata, key_offsets)
    tensors = _read_tensor_table(cursor, num_tensors, alignment, part)
    return Header(version, metadata, key_offsets, metadata_end, tensors)


def _read_version(cursor: Cursor) -> int:
    head = cursor.data[:64]
    if head[:4] == MAGIC[::-1]:
        raise UnsupportedModel(f"{cursor.path} is a big-endian GGUF file; only little-endian ones are read")
    if head[:4] != MAGIC:
        cursor.fail(0, f"not a GGUF file: {_foreign_format(head)}")
    cursor.offset = 4
    version = cursor.u32("the version")
    if version and version & 0xFFFF == 0:
        raise UnsupportedModel(f"{cursor.path} is a big-endian GGUF file; only little-endian ones are read")
    if version == 0:
        cursor.fail(4, "the version is 0")
    if version not in KNOWN_VERSIONS:
        raise UnsupportedModel(f"{cursor.path} is of GGUF version {version}; versions 2 and 3 are read")
    return version


def _foreign_format(head: bytes) -> str:
    """What a file that does not begin with the magic seems to be."""
    if not head:
        return "it is empty"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page; the download may have needed a login or a token"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with git lfs pull"
    if head[:4] == b"PK\x03\x04":
        return "it is a zip archive or PyTorch checkpoint; convert the model to GGUF"
    if head[8:9] == b"{" and len(head) > 9:
        return "it is a safetensors file; convert the model to GGUF"
    if head[:4] in (b"lmgg", b"fmgg", b"tjgg", b"algg"):
        return "it is a GGML file from before GGUF; convert it to GGUF"
    return f"it begins with {head[:4]!r} instead of {MAGIC!r}"


def _read_counts(cursor: Cursor) -> tuple[int, int]:
    begin = cursor.offset
    num_tensors = cursor.u64("the tensor count")
    num_keys = cursor.u64("the key count")
    left = cursor.limit - cursor.offset
    for offset, what, count, maximum, min_bytes in (
        (begin, "tensor", num_tensors, MAX_TENSORS, _MIN_TENSOR_BYTES),
        (begin + 8, "key", num_keys, MAX_KEYS, _MIN_KEY_BYTES),
    ):
        if count > maximum:
            cursor.fail(offset, f"the {what} count is {count}; at most {maximum} are allowed")
        if count * min_bytes > left:
            cursor.fail(offset, f"the {what} count is {count}, more than the {left} bytes that follow can hold")
    return num_tensors, num_keys


def _read_metadata(cursor: Cursor, num_keys: int) -> tuple[dict[str, Any], dict[str, int]]:
    metadata: dict[str, Any] = {}
    key_offsets: dict[str, int] = {}
    for index in range(num_keys):
        begin = cursor.offset
        key = cursor.name(f"the name of key {index}", MAX_KEY_BYTES)
        if key in metadata:
            cursor.fail(begin, f"key {key!r} occurs twice")
        key_offsets[key] = cursor.offset
        metadata[key] = _read_value(cursor, key)
    return metadata, key_offsets


def _read_value(cursor: Cursor, key: str) -> Any:
    begin = cursor.offset
    value_type = cursor.u32(f"the type of {key!r}")
    if value_type == _ARRAY:
        return _read_array(cursor, key)
    if value_type == _STRING:
        # Text from other tools is not always UTF-8; surrogateescape keeps the bytes.
        return cursor.string_bytes(f"the value of {key!r}", MAX_STRING_BYTES).decode("utf-8", "surrogateescape")
    if value_type not in _NUMBERS:
        cursor.fail(begin, f"key {key!r} has value type {value_type}; types 0 to 12 exist")
    code, size = _NUMBERS[value_type]
    start = cursor.take(size, f"the value of {key!r}")
    value = struct.unpack_from("<" + code, cursor.data, start)[0]
    return _as_bool(cursor, start, value, key) if value_type == _BOOL else value


def _as_bool(cursor: Cursor, offset: int, value: int, key: str) -> bool:
    if value > 1:
        cursor.fail(offset, f"key {key!r} holds {value} as a truth value; 0 and 1 are allowed")
    return value == 1


def _read_array(cursor: Cursor, key: str) -> list[Any] | StringTable:
    begin = cursor.offset
    element_type = cursor.u32(f"the element type of {key!r}")
    if element_type == _ARRAY:
        cursor.fail(begin, f"key {key!r} is an array of arrays, which no known writer makes")
    if element_type != _STRING and element_type not in _NUMBERS:
        cursor.fail(begin, f"key {key!r} has element type {element_type}; types 0 to 12 exist")
    count_offset = cursor.offset
    count = cursor.u64(f"the length of {key!r}")
    if count > cursor.elements_left:
        cursor.fail(count_offset, f"key {key!r} claims {count} elements; a file may have {MAX_ARRAY_ELEMENTS} in all")
    cursor.elements_left -= count
    min_bytes = count * (8 if element_type == _STRING else _NUMBERS[element_type][1])
    if min_bytes > cursor.limit - cursor.offset:
        left = cursor.limit - cursor.offset
        cursor.fail(count_offset, f"key {key!r} claims {count} elements of at least {min_bytes} bytes; {left} follow")
    if element_type == _STRING:
        return _read_strings(cursor, key, count)
    start = cursor.take(min_bytes, f"the values of {key!r}")
    values = list(struct.unpack_from(f"<{count}{_NUMBERS[element_type][0]}", cursor.data, start))
    if element_type == _BOOL:
        return [_as_bool(cursor, start + index, value, key) for index, value in enumerate(values)]
    return values


def _read_strings(cursor: Cursor, key: str, count: int) -> StringTable:
    """All at once in the core: a vocabulary has 10^5 strings."""
    strings, cursor.offset = StringTable.read(cursor.data, cursor.offset, cursor.limit, count, MAX_STRING_BYTES)
    if len(strings) < count:  # read the string at fault again, for its error
        cursor.string_bytes(f"string {len(strings)} of {key!r}", MAX_STRING_BYTES)
    return strings


def _alignment(cursor: Cursor, metadata: dict[str, Any], key_offsets: dict[str, int]) -> int:
    """`general.alignment`: a u32, a power of two."""
    if "general.alignment" not in metadata:
        return DEFAULT_ALIGNMENT
    offset = key_offsets["general.alignment"]
    if _U32.unpack_from(cursor.data, offset)[0] != _UINT32:
        cursor.fail(offset, "general.alignment must be an unsigned 32-bit number")
    alignment: int = metadata["general.alignment"]
    if alignment == 0 or alignment & (alignment - 1):
        cursor.fail(offset, f"general.alignment is {alignment}; it must be a power of two")
    return alignment


@dataclass(frozen=True, slots=True)
class _Entry:
    """One row of the tensor table, not yet checked against the file's size."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    relative_offset: int
    field_offset: int  # where `relative_offset` stands in the file
    num_bytes: int


def _read_tensor_table(cursor: Cursor, num_tensors: int, alignment: int, part: int) -> dict[str, TensorInfo]:
    entries: dict[str, _Entry] = {}
    for index in range(num_tensors):
        begin = cursor.offset
        name = cursor.name(f"the name of tensor {index}", MAX_TENSOR_NAME_BYTES)
        if name in entries:
            cursor.fail(begin, f"tensor {name!r} occurs twice")
        entries[name] = _read_entry(cursor, name)
    data_start = -(-cursor.offset // alignment) * alignment
    tensors = {entry.name: _place(cursor, entry, data_start, alignment, part) for entry in entries.values()}
    _check_overlaps(cursor, entries, tensors)
    return tensors


def _read_entry(cursor: Cursor, name: str) -> _Entry:
    begin = cursor.offset
    num_dims = cursor.u32(f"the dimension count of {name!r}")
    if not 1 <= num_dims <= MAX_DIMENSIONS:
        cursor.fail(begin, f"tensor {name!r} has {num_dims} dimensions; 1 to {MAX_DIMENSIONS} are allowed")
    start = cursor.take(8 * num_dims, f"the shape of {name!r}")
    shape: tuple[int, ...] = struct.unpack_from(f"<{num_dims}Q", cursor.data, start)
    if 0 in shape:
        cursor.fail(start, f"tensor {name!r} has shape {list(shape)}; no dimension may be 0")
    if math.prod(shape) >= 1 << 63:
        cursor.fail(start, f"tensor {name!r} has shape {list(shape)}, more than 2^63 weights")
    tensor_type = _read_tensor_type(cursor, name)
    if shape[0] % tensor_type.block_size:
        cursor.fail(
            start,
            f"tensor {name!r} has rows of {shape[0]} weights; {tensor_type.name} needs a multiple of "
            f"{tensor_type.block_size}",
        )
    num_bytes = tensor_type.row_bytes(shape[0]) * math.prod(shape[1:])
    field_offset = cursor.offset
    return _Entry(name, tensor_type, shape, cursor.u64(f"the offset of {name!r}"), field_offset, num_bytes)


def _read_tensor_type(cursor: Cursor, name: str) -> TensorType:
    begin = cursor.offset
    type_id = cursor.u32(f"the type of {name!r}")
    if type_id in UNSUPPORTED_TYPE_NAMES:
        raise UnsupportedModel(
            f"{cursor.path}: tensor {name!r} is of type {UNSUPPORTED_TYPE_NAMES[type_id]}, which is not supported; "
            f"the supported types are {known_type_names()}"
        )
    if type_id not in SUPPORTED_TYPES:
        cursor.fail(begin, f"tensor {name!r} has type id {type_id}, which ggml does not define")
    return SUPPORTED_TYPES[type_id]


def _place(cursor: Cursor, entry: _Entry, data_start: int, alignment: int, part: int) -> TensorInfo:
    if entry.relative_offset % alignment:
        cursor.fail(
            entry.field_offset,
            f"tensor {entry.name!r} begins at {entry.relative_offset}, not at a multiple of the alignment {alignment}",
        )
    begin = data_start + entry.relative_offset
    end = begin + entry.num_bytes
    if end > cursor.file_size:
        cursor.fail(
            entry.field_offset,
            f"tensor {entry.name!r} takes bytes [{begin}, {end}), but the file has {cursor.file_size}: "
            "it is damaged, or its download did not finish",
        )
    return TensorInfo(entry.name, entry.type, entry.shape, part, begin, entry.num_bytes)


def _check_overlaps(cursor: Cursor, entries: dict[str, _Entry], tensors: dict[str, TensorInfo]) -> None:
    by_offset = sorted(tensors.values(), key=lambda info: info.offset)
    for first, second in itertools.pairwise(by_offset):
        if first.offset + first.num_bytes > second.offset:
            cursor.fail(
                entries[second.name].field_offset,
                f"tensors {first.name!r} and {second.name!r} overlap at byte {second.offset}",
            )
