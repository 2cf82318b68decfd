"""What a worker is computing at this moment, in memory that outlives it: it tells who was there when it died or hung.

The front makes the memory and hands its descriptor to the process; one side writes, the other reads, without a lock.
A read may see a step half begun, and then names a request too many or too few.

Layout, little-endian 64-bit words: [0] when the step under way began, in monotonic nanoseconds, 0 if none is under way;
[1] how many requests are in it; then MAX_REQUESTS keys of requests; then PLACES pairs of when the preparation of a text
began and its request's key.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import mmap
import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_REQUESTS = 4096  # of one step; more are not told apart
PLACES = 16  # preparations at once; more than there are threads for them
_WORD = 8
_KEYS_AT = 2 * _WORD
_PLACES_AT = _KEYS_AT + MAX_REQUESTS * _WORD
NUM_BYTES = _PLACES_AT + PLACES * 2 * _WORD
_MAX_KEYS = 16384  # that are remembered

_word = struct.Struct("<Q")
_pair = struct.Struct("<QQ")


def key_of(request_id: str) -> int:
    """64 bits of its hash."""
    return int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest(), "little")


def make_memory() -> int:
    """A descriptor of memory for one record, all zeros."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("corral-steps", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, NUM_BYTES)
    return fd


class StepRecord:
    """The worker's side: the engine's thread writes the step, the text threads what they prepare.

    Args:
        fd: of `make_memory`; may be closed afterwards.
    """

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, NUM_BYTES)
        self._keys: dict[str, int] = {}
        self._free = list(range(PLACES))
        self._lock = threading.Lock()

    def begin(self, request_ids: Iterable[str]) -> None:
        """A step over these requests begins."""
        keys = [self._key(request_id) for request_id in itertools.islice(request_ids, MAX_REQUESTS)]
        struct.pack_into(f"<Q{len(keys)}Q", self._memory, _WORD, len(keys), *keys)
        _word.pack_into(self._memory, 0, time.monotonic_ns())

    def end(self) -> None:
        """It is over."""
        _word.pack_into(self._memory, 0, 0)

    @contextlib.contextmanager
    def preparing(self, request_id: str) -> Iterator[None]:
        """Around the preparation of a request's text."""
        with self._lock:
            place = self._free.pop() if self._free else None
        if place is None:
            yield
            return
        at = _PLACES_AT + place * 2 * _WORD
        _pair.pack_into(self._memory, at, time.monotonic_ns(), key_of(request_id))
        try:
            yield
        finally:
            _pair.pack_into(self._memory, at, 0, 0)
            with self._lock:
                self._free.append(place)

    def _key(self, request_id: str) -> int:
        key = self._keys.get(request_id)
        if key is None:
            if len(self._keys) >= _MAX_KEYS:
                self._keys.clear()
            key = self._keys[request_id] = key_of(request_id)
        return key


@dataclass(frozen=True, slots=True)
class Doing:
    """What a worker does, or was doing when it ended.

    Args:
        keys: of the requests in the step and in preparation.
        busy_s: for how long the oldest of these has been under way; 0.0 if nothing is.
    """

    keys: frozenset[int] = frozenset()
    busy_s: float = 0.0


def read_record(memory: mmap.mmap) -> Doing:
    """The front's side."""
    keys: set[int] = set()
    starts = []
    (started,) = _word.unpack_from(memory, 0)
    if started:
        (count,) = _word.unpack_from(memory, _WORD)
        keys.update(struct.unpack_from(f"<{min(count, MAX_REQUESTS)}Q", memory, _KEYS_AT))
        starts.append(started)
    for place in range(PLACES):
        started, key = _pair.unpack_from(memory, _PLACES_AT + place * 2 * _WORD)
        if started:
            keys.add(key)
            starts.append(started)
    busy_s = (time.monotonic_ns() - min(starts)) / 1e9 if starts else 0.0
    return Doing(frozenset(keys), max(0.0, busy_s))
