"""The folder of packed matrices: a model that was packed once is mapped from then on.

A cache only saves time. What is wrong with it, be it a stale or damaged file, a full disk or a folder that cannot be
written, becomes a line in the log and a model that is packed as if there were none.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from corral.config import EngineConfig, cache_home
from corral.errors import InvalidModelFile
from corral.model.packed_file import SUFFIX, PackedFile, PackedWriter, Source, remove_leftovers

FOLDER = "packed"
DEFAULT_MAX_BYTES = 32 << 30
DEFAULT_DISK_SHARE = 0.5  # of what is free or ours, if that is less
FREE_SHARE = 0.1  # of the disk stays free, whatever the cap

_Matrix = tuple[str, int, int, tuple[int, int], memoryview]  # role, layer, type, (rows, cols), packed bytes

logger = logging.getLogger("corral.cache")


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A file of the cache. `model` is None if it cannot be used; `last_used_s` is seconds since the epoch."""

    path: Path
    model: str | None
    num_bytes: int
    last_used_s: float


class PackedCache:
    """The cache in `folder`, of at most `max_bytes`; None derives that from the disk.

    Several processes may use one folder: files appear whole, by renaming, and one that is removed stays readable for
    those that have it mapped.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int | None = None) -> None:
        self.folder = folder or cache_home() / FOLDER
        self._max_bytes = max_bytes
        self._writing: list[CacheWriter] = []

    @classmethod
    def of(cls, config: EngineConfig) -> PackedCache | None:
        """The cache that the settings ask for, or None."""
        return cls(max_bytes=config.cache_max_bytes) if config.cache_weights else None

    def find(self, source: Source, layout: int) -> PackedFile | None:
        """The matrices of a model file, packed in this layout, if they are here."""
        path = self._path_of(source)
        try:
            file = PackedFile(path)
        except FileNotFoundError:
            return None
        except (OSError, InvalidModelFile) as error:
            logger.warning("the packed weights cannot be used, and are made again: %s", error)
            return None
        if file.layout != layout:
            logger.info("%s is of layout %d, not %d; it is made again", path, file.layout, layout)
            return None
        if file.source != source:
            logger.info("%s is of a model file that has been written since; it is made again", path)
            return None
        try:
            os.utime(path)  # when it was last used: the oldest ones are removed first
        except OSError:  # somebody else's folder; it is theirs to keep in order
            return file
        return file

    def writer(self, source: Source, layout: int, model: str, num_bytes: int) -> CacheWriter | None:
        """Takes the matrices of a model of about `num_bytes`; None if there is no room for them."""
        path = self._path_of(source)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            if not self._make_room(num_bytes, path):
                return None
            writer = CacheWriter(PackedWriter(self.folder), path, layout, model, source)
        except OSError as error:
            logger.warning("the packed weights of %s are not kept: %s", model, error)
            return None
        self._writing.append(writer)
        return writer

    def wait(self) -> None:
        """Returns when all that is being written is on the disk, or given up."""
        for writer in self._writing:
            writer.wait()
        self._writing.clear()

    def entries(self) -> list[CachedModel]:
        """What is here, the one used last first."""
        found = []
        for path, status in self._files():
            try:
                model: str | None = PackedFile(path).model
            except (OSError, InvalidModelFile):
                model = None
            found.append(CachedModel(path, model, status.st_size, status.st_mtime))
        return sorted(found, key=lambda each: each.last_used_s, reverse=True)

    def clear(self) -> list[CachedModel]:
        """Removes everything and returns what it was.

        Raises:
            OSError: a file that cannot be removed.
        """
        entries = self.entries()
        for entry in entries:
            entry.path.unlink(missing_ok=True)
        remove_leftovers(self.folder)
        return entries

    def _path_of(self, source: Source) -> Path:
        return self.folder / (source.content[:32] + SUFFIX)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob(f"*{SUFFIX}"):
            try:
                yield path, path.stat()
            except OSError:  # removed by another process
                continue

    def _make_room(self, num_bytes: int, path: Path) -> bool:
        """Removes what was used longest ago until `num_bytes` more fit; `path` is about to be replaced."""
        files = sorted(self._files(), key=lambda each: each[1].st_mtime)
        used = sum(status.st_size for _, status in files)
        disk = shutil.disk_usage(self.folder)
        spare = disk.free - int(disk.total * FREE_SHARE)
        cap = self._max_bytes
        if cap is None:
            cap = min(DEFAULT_MAX_BYTES, int((disk.free + used) * DEFAULT_DISK_SHARE))
        if num_bytes > cap or num_bytes > spare + used:
            limit = "the cap of the cache" if num_bytes > cap else "what the disk can spare"
            logger.warning("packed weights of %d MB are not kept: that is more than %s", num_bytes >> 20, limit)
            return False
        excess = max(used + num_bytes - cap, num_bytes - spare)
        # The file that is replaced goes first: it is of no more use.
        for old, status in sorted(files, key=lambda each: each[0] != path):
            if excess <= 0:
                break
            old.unlink(missing_ok=True)
            excess -= status.st_size
            logger.info("%s is removed to make room", old)
        return True


class CacheWriter:
    """Writes a model's matrices on a thread of its own, while the next ones are packed.

    The thread outlives the load: to wait for the disk would keep the first answer waiting. A process that ends by
    itself lets it finish; one that is killed leaves a temporary file, which the next writer removes.
    """

    def __init__(self, file: PackedWriter, path: Path, layout: int, model: str, source: Source) -> None:
        self._file = file
        self._path = path
        self._layout = layout
        self._model = model
        self._source = source
        self._queue: SimpleQueue[_Matrix | bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="corral-cache")
        self._thread.start()

    def add(self, role: str, layer: int, kind: int, shape: tuple[int, int], data: memoryview) -> None:
        """Takes a packed matrix, which must not change; `shape` is (rows, cols)."""
        self._queue.put((role, layer, kind, shape, data))

    def finish(self, *, is_whole: bool) -> None:
        """All matrices have come, or the load has failed."""
        self._queue.put(is_whole)

    def wait(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        started = time.monotonic()
        item: _Matrix | bool | None = None
        try:
            while not isinstance(item := self._queue.get(), bool):
                self._file.add(*item)
            if not item:
                self._file.abandon()
                return
            self._file.commit(self._path, self._layout, self._model, self._source)
        except OSError as error:
            self._file.abandon()
            logger.warning("the packed weights of %s are not kept: %s", self._model, error)
            while not isinstance(item, bool):  # the matrices still to come are let go one by one
                item = self._queue.get()
        else:
            logger.info("%s is written in %.1f s", self._path, time.monotonic() - started)
