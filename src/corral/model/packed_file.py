"""A file of packed matrices, made to be mapped: its layout, its reader and its writer.

Layout (little endian): the head; the matrices, each at a multiple of 4096 bytes, as the native core packs them; a
directory in JSON, which says what each is and where; nothing else. The head names the directory and holds a SHA-256 of
both. It is written last, and the file is renamed into place only once it is on the disk whole: a file that was cut
short has no head. Files are replaced by renaming and never changed in place: to truncate one while a model has it
mapped would end that process with SIGBUS.

A head that is right shows where the matrices lie; their own checksums are compared by `verify` only, as that reads all.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import mmap
import os
import stat
import struct
import tempfile
import time
import zlib
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from corral.errors import InvalidModelFile

SUFFIX = ".packed"
TEMPORARY_SUFFIX = ".tmp"
ALIGNMENT = 4096
MAGIC = b"CORRALPK"
FORMAT = 1  # of head and directory; the layout of the matrices has a number of its own
MAX_DIRECTORY_BYTES = 32 << 20
_HEAD = struct.Struct("<8sIIQQ")  # magic, format, layout of the matrices, offset and bytes of the directory
_DIGEST_BYTES = 32
_CHUNK_BYTES = 4 << 20  # written at once, at a multiple of itself: the system then caches the file in huge pages
_LEFTOVER_AGE_S = 60.0

logger = logging.getLogger("corral.cache")


@dataclass(frozen=True, slots=True)
class Source:
    """Which model file the matrices are of.

    Args:
        content: digest of its headers, sizes and some of its pages; see GGUFFile.content_digest.
        mtimes_ns: when each of its parts was last written.
    """

    content: str
    mtimes_ns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """One matrix: what it is to the decoder, and where its packed bytes lie in the file."""

    role: str
    layer: int
    type: int
    rows: int
    cols: int
    offset: int
    num_bytes: int
    crc32: int


class PackedFile:
    """An open file, mapped read-only; its pages are shared among all processes that map it.

    Attributes:
        layout: of the matrices; only a core with the same _native.packed_layout() may map them.
        model: name, for people.
    """

    def __init__(self, path: Path) -> None:
        """Opens and checks all but the content of the matrices.

        Raises:
            FileNotFoundError: there is no such file.
            InvalidModelFile: foreign, damaged or hostile; names the offset of the fault.
        """
        self.path = path
        self._map = _map_file(path)
        self._view = memoryview(self._map)
        self.num_bytes = len(self._map)
        self.layout, directory, self._data_end = self._read_head()
        try:
            self.model = str(directory["model"])
            source = directory["source"]
            self.source = Source(str(source["content"]), tuple(int(each) for each in source["mtimes_ns"]))
            entries = [self._checked(PackedTensor(*row)) for row in directory["tensors"]]
        except (KeyError, TypeError, ValueError) as error:
            self._fail(self._data_end, f"the directory does not have the form it should have: {error!r}")
        self.tensors = {(entry.role, entry.layer): entry for entry in entries}

    def data(self, tensor: PackedTensor) -> memoryview:
        """The packed bytes, read-only, not copied; they keep the map open while they are held."""
        return self._view[tensor.offset : tensor.offset + tensor.num_bytes]

    def verify(self) -> None:
        """Reads everything.

        Raises:
            InvalidModelFile: the bytes of a matrix are not those that were written.
        """
        for tensor in self.tensors.values():
            if zlib.crc32(self.data(tensor)) != tensor.crc32:
                self._fail(tensor.offset, f"the bytes of {tensor.role} of layer {tensor.layer} have changed")

    def advise(self) -> None:
        """Asks the system for huge pages: where it has them for files, it then reads and maps 2 MiB at a time."""
        try:
            if hasattr(mmap, "MADV_HUGEPAGE"):
                self._map.madvise(mmap.MADV_HUGEPAGE)
        except OSError as error:
            logger.debug("no huge pages for %s: %s", self.path, error)

    def _read_head(self) -> tuple[int, dict[str, Any], int]:
        """(layout, directory, where the directory begins)."""
        if self.num_bytes < ALIGNMENT:
            self._fail(0, f"it has {self.num_bytes} bytes, less than a head")
        magic, version, layout, begin, size = _HEAD.unpack_from(self._map)
        if magic != MAGIC:
            self._fail(0, f"it begins with {magic!r} instead of {MAGIC!r}")
        if version != FORMAT:
            self._fail(8, f"it is of format {version}; this version of Corral reads {FORMAT}")
        if size > MAX_DIRECTORY_BYTES or begin < ALIGNMENT or begin + size != self.num_bytes:
            self._fail(16, f"its directory is [{begin}, {begin + size}), but it has {self.num_bytes} bytes")
        raw = self._view[begin:]
        if _digest(self._view[: _HEAD.size], raw) != self._view[_HEAD.size : _HEAD.size + _DIGEST_BYTES]:
            self._fail(_HEAD.size, "the checksum of its head and directory is wrong")
        try:
            directory = json.loads(bytes(raw))
        except (ValueError, RecursionError) as error:
            self._fail(begin, f"the directory is no JSON: {error}")
        if not isinstance(directory, dict):
            self._fail(begin, "the directory is no JSON object")
        return layout, directory, begin

    def _checked(self, tensor: PackedTensor) -> PackedTensor:
        numbers = astuple(tensor)[1:]
        if not isinstance(tensor.role, str) or any(type(number) is not int for number in numbers):
            raise TypeError(f"an entry of the wrong types: {tensor}")
        is_inside = tensor.offset >= ALIGNMENT and 0 < tensor.num_bytes <= self._data_end - tensor.offset
        if not is_inside or tensor.offset % ALIGNMENT:
            raise ValueError(f"a matrix that lies elsewhere: {tensor}")
        return tensor

    def _fail(self, offset: int, fault: str) -> NoReturn:
        raise InvalidModelFile(self.path, offset, fault)


class PackedWriter:
    """Writes a file beside its final place, matrix by matrix. Every method may raise OSError; then `abandon`.

    A temporary file is locked while its writer lives, so that those of the dead can be told; see `remove_leftovers`.
    """

    def __init__(self, folder: Path) -> None:
        descriptor, name = tempfile.mkstemp(TEMPORARY_SUFFIX, ".", folder)
        self._temporary = Path(name)
        self._file: BinaryIO = os.fdopen(descriptor, "wb", buffering=0)
        self._tensors: list[PackedTensor] = []
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))  # a view, as it is filled without a copy in between
        self._begin = 0  # where the chunk belongs in the file
        self._fill = 0
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._append(memoryview(bytes(ALIGNMENT)))
        except BaseException:
            self.abandon()
            raise

    def add(self, role: str, layer: int, kind: int, shape: tuple[int, int], data: memoryview) -> None:
        """Appends a matrix; `shape` is (rows, cols), `data` its packed bytes."""
        self._append(memoryview(bytes(-self._fill % ALIGNMENT)))
        offset = self._begin + self._fill
        crc32 = self._append(data)
        self._tensors.append(PackedTensor(role, layer, kind, *shape, offset, data.nbytes, crc32))

    def commit(self, path: Path, layout: int, model: str, source: Source) -> None:
        """Completes the file, waits until the disk has it, and puts it in place of `path`."""
        rows = [astuple(tensor) for tensor in self._tensors]
        directory = json.dumps({"model": model, "source": asdict(source), "tensors": rows}).encode()
        begin = self._begin + self._fill
        self._append(memoryview(directory))
        self._write(self._chunk[: self._fill], self._begin)
        os.fsync(self._file.fileno())
        head = _HEAD.pack(MAGIC, FORMAT, layout, begin, len(directory))
        self._write(memoryview(head + _digest(head, directory)), 0)
        os.fsync(self._file.fileno())
        self._temporary.replace(path)
        self._close()

    def abandon(self) -> None:
        """Removes what was written."""
        self._temporary.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        self._file.close()
        self._chunk = memoryview(b"")  # whoever holds the writer holds no memory

    def _append(self, data: memoryview) -> int:
        """Adds `data` to the file, by whole chunks, and returns its checksum."""
        crc32 = 0
        while data.nbytes:
            piece = data[: _CHUNK_BYTES - self._fill]
            crc32 = zlib.crc32(piece, crc32)
            self._chunk[self._fill : self._fill + piece.nbytes] = piece
            self._fill += piece.nbytes
            data = data[piece.nbytes :]
            if self._fill == _CHUNK_BYTES:
                self._write(self._chunk, self._begin)
                self._begin, self._fill = self._begin + _CHUNK_BYTES, 0
        return crc32

    def _write(self, data: memoryview, offset: int) -> None:
        while data.nbytes:
            done = os.pwrite(self._file.fileno(), data, offset)
            data, offset = data[done:], offset + done


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of writers that have died."""
    newest = time.time() - _LEFTOVER_AGE_S
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        try:
            if path.stat().st_mtime > newest:  # perhaps made this moment, and not locked yet
                continue
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except OSError:  # its writer lives, or it is not ours to remove
            continue


def _map_file(path: Path) -> mmap.mmap:
    # Not blocking, or a pipe in its place would hang us; the file that is checked is the one that is mapped.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            raise InvalidModelFile(path, 0, "it is empty, or no file")
        return mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)


def _digest(head: bytes | memoryview, directory: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(head)
    digest.update(directory)
    return digest.digest()
