"""The JSON file of a comparison: written whole or not at all, and read back with its faults named."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import msgspec

from corral.compare.results import FORMAT, Comparison
from corral.errors import CorralError

MAX_BYTES = 1 << 30  # of a file that is read; a full run of four engines takes some tens of megabytes
MAX_ENGINES = 32  # each is compared with each other
_GZIP = b"\x1f\x8b"  # its first bytes
_DIGITS = 6  # after the point: times to the microsecond


class InvalidComparison(CorralError):
    """A file that holds no comparison, or one of a format that this version does not read."""


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Beside its final name first, so that whoever reads it never sees half a file."""
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(msgspec.json.encode(_plain(msgspec.to_builtins(comparison))))
    beside.replace(path)


def read_comparison(path: Path) -> Comparison:
    """What was written, or the same compressed by gzip, as a result is kept in a repository.

    Raises:
        InvalidComparison: it cannot be read, is too long, or holds something else; the text names the field.
    """
    try:
        with path.open("rb") as file:
            is_packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            data = (gzip.GzipFile(fileobj=file) if is_packed else file).read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidComparison(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise InvalidComparison(f"{path}: over {MAX_BYTES:,} bytes; no more are read")
    return decode_comparison(data, str(path))


def decode_comparison(data: bytes, origin: str) -> Comparison:
    """`origin` is how messages name the data. Raises InvalidComparison."""
    try:
        fields = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidComparison(f"{origin}: not JSON: {error}") from None
    if not isinstance(fields, dict) or "format" not in fields:
        raise InvalidComparison(f"{origin}: no comparison: it has no field `format`")
    if (found := fields["format"]) != FORMAT:
        raise InvalidComparison(f"{origin}: format {found!r:.40}; this version of Corral reads format {FORMAT}")
    try:
        # Not strict, as a number that JSON cannot write stands there as text.
        comparison = msgspec.convert(fields, Comparison, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidComparison(f"{origin}: {error}") from None
    if len(comparison.engines) > MAX_ENGINES:
        raise InvalidComparison(f"{origin}: {len(comparison.engines)} engines; at most {MAX_ENGINES} are read")
    return comparison


def _plain(value: Any) -> Any:
    """What JSON can say: NaN and infinities as text, times without digits that no clock has, no half characters."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
