"""Cold and warm starts: a model's files put out of the page cache, or read into it."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_PART = 8 << 20


def drop(paths: Iterable[Path]) -> bool:
    """Files, and those in folders. Whether all of it is gone: pages that a process has mapped stay."""
    files = list(_files(paths))
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # a page that is yet to be written would stay
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return bool(files) and all(cached_share(path) == 0.0 for path in files)


def warm(paths: Iterable[Path]) -> None:
    """Reads all of it once."""
    buffer = bytearray(_PART)
    for path in _files(paths):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def cached_share(path: Path) -> float:
    """How much of a file is in the page cache, 0 to 1; 1 where the system does not tell."""
    size = path.stat().st_size
    if size == 0:
        return 0.0
    num_pages = -(-size // mmap.PAGESIZE)
    told = (ctypes.c_ubyte * num_pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as pages:
        first = ctypes.c_char.from_buffer(pages)  # ACCESS_COPY, as only a writable map gives its address
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), told)
        del first  # else the map could not be closed
    return 1.0 if failed else sum(byte & 1 for byte in bytes(told)) / num_pages


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(inner for inner in path.rglob("*") if inner.is_file())
        elif path.is_file():
            yield path
