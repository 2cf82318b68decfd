"""GGUF model files, opened as read-only memory maps: `open_gguf(path)`.

The map stands for the file: whoever truncates the file while it is open makes later reads beyond its new end fail
with SIGBUS. Corral's own store replaces files by renaming, never in place, and a worker process is all that is lost.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import stat
import struct
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from corral._native import StringTable
from corral.errors import InvalidModelFile, ModelNotFound
from corral.model.gguf_reader import Header, TensorInfo, read_header
from corral.model.tensor_type import TensorType

__all__ = ["GGUFFile", "TensorInfo", "TensorType", "open_gguf"]

_SPLIT_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_NUM_SAMPLES = 64  # pages of tensor data that go into a digest
_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")


class GGUFFile:
    """A checked model file; a split one counts as one file. Use it as a context manager, or call close().

    Attributes:
        path: the file, or the first part.
        version: of the GGUF format, 2 or 3.
        metadata: key -> int, float, bool, str, list of numbers or truth values, or StringTable. Strings that are not
            UTF-8 hold their bytes as surrogate escapes.
        key_offsets: key -> offset of its value in `path`, for error messages.
        tensors: name -> TensorInfo, in the order of the tensor table.
        num_bytes: size of all parts.
        mtimes_ns: when each part was last written, in nanoseconds since the epoch.
    """

    def __init__(
        self, paths: list[Path], maps: list[mmap.mmap], headers: list[Header], mtimes_ns: tuple[int, ...]
    ) -> None:
        self.path = paths[0]
        self.paths = paths
        self.version = headers[0].version
        self.metadata: dict[str, Any] = headers[0].metadata
        self.key_offsets = headers[0].key_offsets
        self._metadata_end = headers[0].metadata_end
        self.tensors = {name: info for header in headers for name, info in header.tensors.items()}
        self.num_bytes = sum(len(data) for data in maps)
        self.mtimes_ns = mtimes_ns
        self._maps = maps
        self._views = [memoryview(data) for data in maps]

    def array_length(self, key: str) -> int | None:
        """Elements of the array under `key`; None if there is none."""
        value = self.metadata.get(key)
        return len(value) if isinstance(value, list | StringTable) else None

    def raw_value(self, key: str) -> bytes:
        """Type and value of `key` as they stand in the file, for a writer that keeps them."""
        keys = list(self.key_offsets)
        following = keys[keys.index(key) + 1 :][:1]
        # Before the next value stand the next key's length and name.
        ends = [self.key_offsets[other] - len(other.encode()) - 8 for other in following] or [self._metadata_end]
        return bytes(self._views[0][self.key_offsets[key] : ends[0]])

    def data(self, info: TensorInfo) -> memoryview:
        """The tensor's bytes in the file, read-only, not copied."""
        return self._views[info.part][info.offset : info.offset + info.num_bytes]

    def will_need(self, info: TensorInfo) -> None:
        """Asks the system to read the tensor ahead."""
        self._advise(info, mmap.MADV_WILLNEED)

    def release(self, info: TensorInfo) -> None:
        """Gives the tensor's mapped pages back; a later read fetches them again."""
        self._advise(info, mmap.MADV_DONTNEED)

    def content_digest(self) -> str:
        """SHA-256, in hex, over the headers, the sizes and evenly spread pages of tensor data: tells models apart
        wherever they lie, without reading them. Bytes changed in place, elsewhere, show in `mtimes_ns` alone."""
        digest = hashlib.sha256()
        for part, view in enumerate(self._views):
            size = len(view)
            begin = min((info.offset for info in self.tensors.values() if info.part == part), default=size)
            digest.update(struct.pack("<QQ", size, begin))
            digest.update(view[:begin])
            for index in range(_NUM_SAMPLES):
                page = begin + (size - begin) * index // _NUM_SAMPLES
                digest.update(view[page : page + mmap.PAGESIZE])
            digest.update(view[-mmap.PAGESIZE :])
        return digest.hexdigest()

    def _advise(self, info: TensorInfo, advice: int) -> None:
        begin = info.offset // mmap.PAGESIZE * mmap.PAGESIZE
        self._maps[info.part].madvise(advice, begin, info.offset + info.num_bytes - begin)

    def close(self) -> None:
        """Ends the map, or leaves that to the last memoryview that data() has given out. May be called twice."""
        for view, data in zip(self._views, self._maps, strict=True):
            view.release()
            try:
                data.close()
            except BufferError:
                continue  # somebody still holds a slice; the map goes with it
        self._views, self._maps = [], []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_gguf(path: str | Path) -> GGUFFile:
    """Opens and checks a GGUF file; of a split model, all parts, whichever of them is named.

    Raises:
        ModelNotFound: there is no such file.
        InvalidModelFile: not a GGUF file, damaged, hostile, or a part is missing.
        UnsupportedModel: a GGUF version, byte order or tensor type that Corral does not read.
    """
    path = Path(path)
    paths = _split_paths(path)
    maps: list[mmap.mmap] = []
    try:
        headers, mtimes_ns = [], []
        for part, part_path in enumerate(paths):
            data, mtime_ns = _map_file(part_path)
            maps.append(data)
            mtimes_ns.append(mtime_ns)
            headers.append(read_header(str(part_path), maps[-1], part))
            _check_split_keys(part_path, headers[-1], part, len(paths))
        _check_parts_together(paths, headers)
        return GGUFFile(paths, maps, headers, tuple(mtimes_ns))
    except BaseException:
        for data in maps:
            data.close()
        raise


def _map_file(path: Path) -> tuple[mmap.mmap, int]:
    """The map, and when what it shows was last written."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # checked before open, which would hang on a pipe
            raise InvalidModelFile(path, 0, "it is a folder or device, not a file")
        if status.st_size == 0:  # cannot be mapped
            raise InvalidModelFile(path, 0, "not a GGUF file: it is empty")
        with path.open("rb") as file:
            mtime_ns = os.fstat(file.fileno()).st_mtime_ns  # before a byte is read: a later change makes it later
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), mtime_ns
    except FileNotFoundError:
        raise ModelNotFound(f"there is no file {path}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or emptied since the check
        raise InvalidModelFile(path, 0, f"it cannot be read: {error}") from error


def _split_paths(path: Path) -> list[Path]:
    """All parts of the model that `path` is, or is a part of, in order."""
    match = _SPLIT_NAME.fullmatch(path.name)
    if match is None:
        return [path]
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= number <= count:
        return [path]
    paths = [path.with_name(f"{match['stem']}-{index:05d}-of-{count:05d}.gguf") for index in range(1, count + 1)]
    if path.exists():
        for index, part_path in enumerate(paths, start=1):
            if not part_path.exists():
                raise InvalidModelFile(
                    part_path, 0, f"part {index} of {count} is missing; {path.name} needs all of them"
                )
    return paths if path.exists() else [path]


def _check_split_keys(path: Path, header: Header, part: int, num_parts: int) -> None:
    """The file's own split keys must agree with its name."""
    values = {}
    for key in _SPLIT_KEYS:
        value = header.metadata.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise InvalidModelFile(path, header.key_offsets[key], f"{key} must be a whole number")
        values[key] = value
    count = values["split.count"]
    if count is None:
        if num_parts > 1:
            raise InvalidModelFile(path, 0, f"its name says part {part + 1} of {num_parts}, but it has no split.count")
        return
    if count != num_parts and max(count, num_parts) > 1:
        raise InvalidModelFile(
            path,
            header.key_offsets["split.count"],
            f"split.count is {count}, but its name says {num_parts}; parts must be named "
            "NAME-00001-of-0000N.gguf and lie in one folder",
        )
    if num_parts > 1 and values["split.no"] != part:
        offset = header.key_offsets.get("split.no", 0)
        raise InvalidModelFile(path, offset, f"split.no is {values['split.no']}, but its name says {part} (from 0)")


def _check_parts_together(paths: list[Path], headers: list[Header]) -> None:
    if len(headers) == 1:
        return
    owner: dict[str, int] = {}
    for part, header in enumerate(headers):
        for name, info in header.tensors.items():
            if name in owner:
                other = paths[owner[name]].name
                raise InvalidModelFile(paths[part], info.offset, f"tensor {name!r} is in {other} too")
            owner[name] = part
    expected = headers[0].metadata.get("split.tensors.count")
    if expected is not None and expected != len(owner):
        raise InvalidModelFile(
            paths[0],
            headers[0].key_offsets["split.tensors.count"],
            f"split.tensors.count is {expected}, but the parts hold {len(owner)} tensors",
        )
