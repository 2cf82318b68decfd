"""Files of the store, written whole or not at all: a reader, a kill or a power cut never meets half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from corral.errors import CorralError, DigestMismatch, DiskFull
from corral.store.paths import PARTIAL

READ_BYTES = 1 << 22
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """The system's errors while `path` is written, in our own words.

    Raises:
        DiskFull: there is no room, or no quota left.
        CorralError: any other OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise disk_full(path) from error
        raise CorralError(
            f"cannot use the model folder: {error.filename or path}: {error.strerror or error}"
        ) from error


def disk_full(path: Path, missing: int | None = None) -> DiskFull:
    """No room for `path`, which lacks so many bytes."""
    need = f"{missing / 1e6:,.0f} MB more are needed. " if missing is not None else ""
    return DiskFull(
        f"no room in {path.parent}: {need}Make room, for instance with `corral store prune`, or set CORRAL_MODELS to a "
        "folder on another disk"
    )


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, so that they survive a power cut."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_file(whole: Path, target: Path) -> None:
    """Gives a whole file its name, in an order that survives a power cut."""
    with whole.open("rb") as file:
        os.fsync(file.fileno())
    whole.replace(target)
    sync_folder(target.parent)


def replace_file(target: Path, data: bytes) -> None:
    """Writes a small file in place of what was there."""
    scratch = target.with_name(f"{PARTIAL}-{secrets.token_hex(8)}")
    try:
        scratch.write_bytes(data)
        publish_file(scratch, target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def replace_link(link: Path, target: Path) -> None:
    """Makes `link` a symbolic link to `target`, in place of what was there."""
    scratch = link.with_name(f"{link.name}{PARTIAL}-{secrets.token_hex(8)}")
    try:
        scratch.symlink_to(target)
        scratch.replace(link)
        sync_folder(link.parent)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_blob(target: Path, digest: str, chunks: Iterable[bytes], size: int | None) -> None:
    """Writes `chunks` to `target`, a blob's place, if they are what `digest` (hex) says.

    What the iterable raises goes through; nothing is left then.

    Raises:
        DigestMismatch: other bytes, or not `size` of them.
        DiskFull: no room.
    """
    if size is not None and size > (free := shutil.disk_usage(target.parent).free):
        raise disk_full(target, size - free)
    scratch = target.with_name(f"{target.name}{PARTIAL}-{secrets.token_hex(8)}")
    try:
        written, found = _write_hashed(scratch, chunks, size)
        if size is not None and written != size:
            raise DigestMismatch(f"{written} bytes have come; {size} are expected")
        if found != digest:
            raise DigestMismatch(f'digest mismatch, expected "sha256:{digest}", got "sha256:{found}"')
        with storing(target):
            publish_file(scratch, target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _write_hashed(path: Path, chunks: Iterable[bytes], size: int | None) -> tuple[int, str]:
    """Writes a new file; returns how many bytes have come, at most one chunk beyond `size`, and their digest."""
    hasher = hashlib.sha256()
    written = 0
    with storing(path):
        file = path.open("xb", buffering=0)
    with file:
        for chunk in chunks:
            hasher.update(chunk)
            written += len(chunk)
            if size is not None and written > size:
                break
            with storing(path):
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
    return written, hasher.hexdigest()


def hash_file(path: Path, on_bytes: Callable[[int], None]) -> str:
    """SHA-256 of a file, in hex; `on_bytes` is told how many have been read.

    Raises:
        OSError: it cannot be read.
    """
    hasher = hashlib.sha256()
    done = 0
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(READ_BYTES))
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            done += count
            on_bytes(done)
    return hasher.hexdigest()
