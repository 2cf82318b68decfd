"""A bounds-checked read position in a GGUF header, and the limits that keep a hostile header harmless."""

from __future__ import annotations

import mmap
import struct
from typing import NoReturn

from corral.errors import InvalidModelFile

# Limits far above every real file (a vocabulary of 262,144 takes 7 MB of header) and far below harm.
MAX_HEADER_BYTES = 128 << 20
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_STRING_BYTES = 16 << 20
MAX_KEY_BYTES = (1 << 16) - 1
MAX_TENSOR_NAME_BYTES = 64
MAX_ARRAY_ELEMENTS = 1 << 22  # of all arrays of a file together
MAX_DIMENSIONS = 4

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Cursor:
    """A position in the header, with bounds-checked reads. Never goes beyond MAX_HEADER_BYTES."""

    def __init__(self, path: str, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.file_size = len(data)
        self.limit = min(self.file_size, MAX_HEADER_BYTES)
        self.offset = 0
        self.elements_left = MAX_ARRAY_ELEMENTS

    def fail(self, offset: int, fault: str) -> NoReturn:
        raise InvalidModelFile(self.path, offset, fault)

    def take(self, num_bytes: int, what: str) -> int:
        """Steps over `num_bytes` and returns where they begin."""
        begin = self.offset
        if num_bytes > self.limit - begin:
            if self.limit < self.file_size:
                self.fail(begin, f"{what} would make the header longer than {MAX_HEADER_BYTES} bytes")
            self.fail(begin, f"the file ends within {what}: {num_bytes} bytes needed, {self.limit - begin} left")
        self.offset = begin + num_bytes
        return begin

    def u32(self, what: str) -> int:
        value: int = _U32.unpack_from(self.data, self.take(4, what))[0]
        return value

    def u64(self, what: str) -> int:
        value: int = _U64.unpack_from(self.data, self.take(8, what))[0]
        return value

    def string_bytes(self, what: str, max_bytes: int) -> bytes:
        begin = self.offset
        length = self.u64(f"the length of {what}")
        if length > max_bytes:
            self.fail(begin, f"{what} claims {length} bytes; at most {max_bytes} are allowed")
        start = self.take(length, what)
        return self.data[start : start + length]

    def name(self, what: str, max_bytes: int) -> str:
        """A key or tensor name: not empty, valid UTF-8."""
        begin = self.offset
        raw = self.string_bytes(what, max_bytes)
        if not raw:
            self.fail(begin, f"{what} is empty")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.fail(begin, f"{what} is not UTF-8: {raw[:64]!r}")
