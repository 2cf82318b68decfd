"""tokenizer.model files: SentencePiece's protocol buffer, as far as a tokenizer needs it.

ModelProto: field 1, repeated: a piece (1 text, 2 score, 3 type); field 3: how texts are normalised (3: a space first).
Source: sentencepiece_model.proto and the protocol buffers' encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corral.errors import InvalidModelFile

MAX_BYTES = 64 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    score: float
    kind: int  # 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    pieces: list[Piece]
    adds_space: bool  # in front of a text


class _DamagedError(ValueError):
    """The bytes are no protocol buffer."""


def read_pieces(path: Path) -> SentencePieceModel:
    """Reads a tokenizer.model.

    Raises:
        InvalidModelFile: it cannot be read, or is none.
    """
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise _DamagedError(f"it is longer than {MAX_BYTES} bytes")
        pieces: list[Piece] = []
        adds_space = True
        for field, value in _fields(data):
            if field == 1 and isinstance(value, bytes):
                pieces.append(_piece(value))
            elif field == 3 and isinstance(value, bytes):
                adds_space = dict(_fields(value)).get(3, 1) != 0
    except (OSError, UnicodeDecodeError, _DamagedError) as error:
        raise InvalidModelFile(path, 0, f"no SentencePiece model: {error}") from error
    if not pieces:
        raise InvalidModelFile(path, 0, "no SentencePiece model: it has no pieces")
    return SentencePieceModel(pieces, adds_space)


def _piece(data: bytes) -> Piece:
    fields = dict(_fields(data))
    text, score, kind = fields.get(1, b""), fields.get(2, 0.0), fields.get(3, 1)
    if not isinstance(text, bytes) or not isinstance(score, float) or kind not in range(1, 7):
        raise _DamagedError("a piece is not as it should be")
    return Piece(text.decode(), score, int(kind))


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """(number, value) of each field."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == _VARINT:
            value: int | float | bytes
            value, position = _varint(data, position)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
            if kind == _BYTES:
                size, position = _varint(data, position)
            if size is None or size > len(data) - position:
                raise _DamagedError(f"a field at byte {position} goes beyond its end")
            raw = data[position : position + size]
            position += size
            value = struct.unpack("<f", raw)[0] if kind == _FIXED32 else raw
        yield key >> 3, value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise _DamagedError("it ends within a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _DamagedError(f"a number before byte {position} is too long")
