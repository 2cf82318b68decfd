"""Adapters in memory: loaded when a request first names them, kept while there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path

from corral.errors import InsufficientMemory, InvalidModelFile, ModelNotFound, QueueFull
from corral.model.adapter import LoadedAdapter, open_adapter
from corral.model.config import ModelConfig

_RETRY_S = 5

# A file by its real path, when it was written, and its size: who changes it makes another adapter of it.
_Key = tuple[Path, int, int]


class _Entry:
    """An adapter that is loaded, or on its way. `num_bytes` count from the moment its size is known."""

    __slots__ = ("future", "num_bytes", "num_users")

    def __init__(self) -> None:
        self.future: Future[LoadedAdapter] = Future()
        self.num_bytes = 0
        self.num_users = 0


class AdapterLease:
    """One user's hold on an adapter."""

    def __init__(self, adapter: LoadedAdapter, entry: _Entry, lock: threading.Lock) -> None:
        self.adapter = adapter
        self._entry: _Entry | None = entry
        self._lock = lock

    def release(self) -> None:
        """From now on the adapter may be dropped to make room. Idempotent."""
        with self._lock:
            if self._entry is not None:
                self._entry.num_users -= 1
                self._entry = None


class AdapterCache:
    """The adapters of one model. Any thread may call any method; loads run on the caller's, never on the engine's.

    An adapter that a step reads stays in memory until the step has ended, whatever is dropped here: its sequences hold
    it too.

    Args:
        config: of the model that the adapters are for.
        max_bytes: most that all of them take.
    """

    def __init__(self, config: ModelConfig, max_bytes: int) -> None:
        self._config = config
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()  # least recently used first

    def acquire(self, path: str) -> AdapterLease:
        """The adapter in the file at `path`, loaded now if it is not here yet; blocks while it loads.

        Raises:
            ModelNotFound, InvalidModelFile, UnsupportedModel: as open_adapter says.
            InsufficientMemory: it is larger than all adapters together may be.
            QueueFull: it has no room beside those that requests are using now.
        """
        key = _key_of(path)
        with self._lock:
            entry = self._entries.get(key)
            is_new = entry is None
            if entry is None:
                entry = self._entries[key] = _Entry()
            entry.num_users += 1
            self._entries.move_to_end(key)
        if is_new:
            self._load(key, entry)
        lease = None
        try:
            lease = AdapterLease(entry.future.result(), entry, self._lock)
        finally:
            if lease is None:
                with self._lock:
                    entry.num_users -= 1
        return lease

    @property
    def num_adapters(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Memory of all adapters that are here."""
        with self._lock:
            return sum(entry.num_bytes for entry in self._entries.values())

    def _load(self, key: _Key, entry: _Entry) -> None:
        """Fulfils the entry's future; after a failure the entry is gone, so that the next request tries anew."""
        try:
            with open_adapter(key[0], self._config) as file:
                self._make_room(entry, file.num_bytes, key[0])
                adapter = file.load()
        except BaseException as error:  # noqa: BLE001 - whoever waits for it must hear of it
            with self._lock:
                del self._entries[key]
            entry.future.set_exception(error)
        else:
            entry.future.set_result(adapter)

    def _make_room(self, entry: _Entry, num_bytes: int, path: Path) -> None:
        if num_bytes > self._max_bytes:
            raise InsufficientMemory(
                f"{path}: the adapter takes {num_bytes} bytes; all adapters together may take {self._max_bytes}. "
                "Raise adapter_max_bytes, or merge the adapter into the model"
            )
        with self._lock:
            used = sum(other.num_bytes for other in self._entries.values())
            for key, other in list(self._entries.items()):
                if used + num_bytes <= self._max_bytes:
                    break
                if other.num_users == 0:
                    used -= other.num_bytes
                    del self._entries[key]
            if used + num_bytes > self._max_bytes:
                raise QueueFull(
                    f"{path}: the adapter takes {num_bytes} bytes; those in use take {used} of the {self._max_bytes} "
                    f"that adapters may take; try again in {_RETRY_S} s",
                    retry_after_s=_RETRY_S,
                )
            entry.num_bytes = num_bytes


def _key_of(path: str) -> _Key:
    try:
        real = Path(path).resolve()
        status = real.stat()
    except FileNotFoundError:
        raise ModelNotFound(f"there is no adapter file {path}") from None
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in it; RuntimeError: links in a circle
        raise InvalidModelFile(path, 0, f"it cannot be read: {error}") from error
    return real, status.st_mtime_ns, status.st_size
