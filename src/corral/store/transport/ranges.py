"""A large file in several ranges at once, into one file with holes; which bytes are there is kept beside it.

`<target>.ranges` is JSON: {"size": bytes, "parts": [[begin, end, done], ...]}, [begin, begin + done) of each part being
on disk. It is written after the bytes, so a killed process never claims what it has not; bytes that a power cut took
show in the digest of the whole. Without that file, what `target` holds is its beginning.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from corral.config import transfer_streams
from corral.errors import DigestMismatch, DownloadError
from corral.store.transport.client import Patience, describe, shown
from corral.store.transport.transfer import Break, Progress, Remote, check_answer, check_room, wait_s, writing

_READ_BYTES = 1 << 22
_TICK_S = 0.06
_SAVE_S = 0.1
_MAX_PARTS = 1024


class NoRanges(Exception):
    """The server sends whole files only."""


@dataclass(frozen=True, slots=True)
class Streams:
    """How a large file is cut: at most `count` requests at once, each for `part_bytes` (more for very large files)."""

    count: int = field(default_factory=transfer_streams)
    part_bytes: int = 16 << 20


@dataclass(slots=True)
class _Part:
    begin: int
    end: int
    done: int = 0

    @property
    def position(self) -> int:
        return self.begin + self.done

    @property
    def missing(self) -> int:
        return self.end - self.position


def state_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.ranges")


def arrived_bytes(target: Path) -> int:
    """How much of `target` has arrived, for those who only watch."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return sum(int(part[2]) for part in json.loads(state_path(target).read_bytes())["parts"])
    try:
        return target.stat().st_size
    except OSError:
        return 0


def is_worthwhile(remote: Remote, target: Path, streams: Streams) -> bool:
    """Whether to fetch in ranges: an earlier try did, or much is missing of a file whose bytes are promised."""
    if remote.size_bytes is None or remote.sha256 is None:
        return False
    if state_path(target).exists():
        return True
    there = target.stat().st_size if target.exists() else 0
    return streams.count > 1 and remote.size_bytes - there >= 2 * streams.part_bytes


class RangedTransfer:
    """All ranges of one file. The caller's thread reports and keeps the state; the others fetch."""

    def __init__(
        self,
        client: httpx.Client,
        remote: Remote,
        target: Path,
        patience: Patience,
        on_progress: Progress,
        streams: Streams,
    ) -> None:
        if remote.size_bytes is None:  # is_worthwhile() has looked
            raise ValueError("a file of unknown size has no ranges")
        self.client = client
        self.remote = remote
        self.size: int = remote.size_bytes
        self.target = target
        self.patience = patience
        self.on_progress = on_progress
        self.streams = streams
        self.parts = self._load() or self._cut()
        self.waiting = [part for part in reversed(self.parts) if part.missing]
        self.changed = threading.Condition()  # guards everything below, the parts and the file
        self.active = 0
        self.has_ranges = False
        self.is_over = False
        self.has_given_up = False  # a thread has, and no byte has come since
        self.limit = streams.count
        self.fatal: BaseException | None = None
        self.last_break: Break | None = None
        self.file = -1

    def run(self) -> None:
        """Fetch what is missing and check the whole.

        Raises:
            NoRanges: nothing was written over; the caller takes the file in one stream.
        """
        with writing(self.target):
            self._save()  # before the first byte out of order
            check_room(self.target, self._missing())
            self.file = os.open(self.target, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if os.fstat(self.file).st_size > self.size:
                    os.ftruncate(self.file, self.size)
                self._fetch()
            finally:
                with self.changed:
                    self.is_over = True
                    self.changed.notify_all()
                    os.close(self.file)  # a thread that still waits for its server writes no more
                self._save()
        self._check_digest()
        state_path(self.target).unlink(missing_ok=True)

    def _missing(self) -> int:
        return sum(part.missing for part in self.parts)

    def _cut(self) -> list[_Part]:
        """Equal parts; what is there without a state is the beginning of the file."""
        there = self.target.stat().st_size if self.target.exists() else 0
        if there > self.size:
            there = 0
        step = max(self.streams.part_bytes, -(-self.size // _MAX_PARTS))
        cuts = [*range(there, self.size, step), self.size]
        begun = [_Part(0, there, there)] if there else []
        return begun + [_Part(begin, end) for begin, end in itertools.pairwise(cuts)]

    def _load(self) -> list[_Part] | None:
        """What an earlier try noted; None if nothing, or nothing that makes sense for this file."""
        try:
            state = json.loads(state_path(self.target).read_bytes())
            parts = [_Part(*(int(number) for number in part)) for part in state["parts"]]
            is_whole = state["size"] == self.size and [p.begin for p in parts] + [self.size] == [
                0,
                *(p.end for p in parts),
            ]
            if is_whole and self.target.exists() and all(0 <= p.done <= p.end - p.begin for p in parts):
                return parts
        except (OSError, ValueError, KeyError, TypeError):
            pass
        if state_path(self.target).exists():
            self.target.unlink(missing_ok=True)  # a file with holes that nothing tells about
        return None

    def _save(self) -> None:
        with self.changed:
            parts = [[part.begin, part.end, part.done] for part in self.parts]
        path = state_path(self.target)
        new = path.with_name(f"{path.name}.new")
        new.write_text(json.dumps({"size": self.size, "parts": parts}))
        new.replace(path)

    def _fetch(self) -> None:
        """Start threads, report, save, until nothing is missing or nobody is left to fetch it."""
        self.on_progress(self.size - self._missing(), self.size, self.remote.label)
        missing = 0
        saved_s = time.monotonic()
        while True:
            with self.changed:
                if self.fatal is not None or (not self.active and (self.has_given_up or not self.waiting)):
                    break
                most = self.limit if self.has_ranges else 1
                while self.active < most and self.waiting and not (self.active and self.last_break):
                    self._start_thread()
                self.changed.wait(_TICK_S)
                missing = self._missing()
            self.on_progress(self.size - missing, self.size, self.remote.label)
            if time.monotonic() - saved_s > _SAVE_S:
                self._save()
                saved_s = time.monotonic()
        if self.fatal is not None:
            raise self.fatal
        if missing := self._missing():
            raise DownloadError(
                f"{shown(self.remote.url)}: {self.last_break}; gave up with {missing:,} of {self.size:,} bytes missing"
            )

    def _start_thread(self) -> None:
        with self.changed:
            self.active += 1
        threading.Thread(target=self._work, name="corral-store-range", daemon=True).start()

    def _work(self) -> None:
        """Fetch parts until there are none; ends early where the server is tired of it."""
        part: _Part | None = None
        try:
            while (part := self._next()) is not None:
                if not self._part_until_whole(part):
                    return
                part = None
        except BaseException as error:  # noqa: BLE001 - handed over to the caller's thread, which raises it
            with self.changed:
                self.fatal = self.fatal or error
                self.is_over = True
        finally:
            with self.changed:
                if part is not None and part.missing:
                    self.waiting.append(part)
                self.active -= 1
                self.changed.notify_all()

    def _next(self) -> _Part | None:
        with self.changed:
            return self.waiting.pop() if self.waiting and not self.is_over else None

    def _part_until_whole(self, part: _Part) -> bool:
        """True if the part is whole; False if this thread should give up, for others or for good."""
        failures = 0
        while part.missing:
            before = part.done
            try:
                self._try(part)
            except Break as error:
                failures = 1 if part.done > before else failures + 1
                with self.changed:
                    if self.is_over:
                        return False
                    self.last_break = error
                    if error.is_busy and self.active > 1:
                        self.limit = max(1, min(self.limit, self.active) - 1)  # fewer at a time is what it asks for
                        return False
                    if failures > self.patience.tries(self.has_ranges, error.retry_after_s):
                        self.has_given_up = True
                        return False
                    self.changed.wait_for(
                        lambda: self.is_over, wait_s(failures, self.patience.backoff_s, error.retry_after_s)
                    )
        return True

    def _try(self, part: _Part) -> None:
        headers = {**dict(self.remote.headers), "Range": f"bytes={part.position}-{part.end - 1}"}
        auth = self.remote.auth or httpx.USE_CLIENT_DEFAULT
        try:
            with self.client.stream("GET", self.remote.url, headers=headers, auth=auth) as response:
                self._check_answer(response, part)
                for piece in response.iter_raw():
                    if not self._take(part, piece):
                        return
        except httpx.TransportError as error:
            raise Break(describe(error, self.remote.url)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DownloadError(f"{shown(self.remote.url)}: {error}") from error
        if part.missing:
            raise Break(f"ended {part.missing} bytes before the end of a range")

    def _check_answer(self, response: httpx.Response, part: _Part) -> None:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise DigestMismatch(f"{shown(self.remote.url)} has fewer than the {self.size} bytes promised")
        check_answer(response)
        if response.status_code == httpx.codes.OK:
            if self.has_ranges:
                raise Break("answered a range with the whole file")
            raise NoRanges
        given = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if given[0] != f"{part.position}-{part.end - 1}":
            raise Break(f"sent the range {given[0]!r} that was not asked for")
        if given[2] not in ("*", str(self.size)):
            raise DigestMismatch(f"{shown(self.remote.url)} has {given[2]} bytes; {self.size} are expected")
        with self.changed:
            self.has_ranges = True
            self.changed.notify_all()

    def _take(self, part: _Part, piece: bytes) -> bool:
        """Write `piece` to its place; False once nobody wants it any more."""
        if len(piece) > part.missing:
            raise DigestMismatch(f"{shown(self.remote.url)} sends more than the range that was asked for")
        with self.changed:
            if self.is_over:
                return False
            view = memoryview(piece)
            while view:
                written = os.pwrite(self.file, view, part.position)
                part.done += written
                view = view[written:]
            self.last_break = None
            self.has_given_up = False
        return True

    def _check_digest(self) -> None:
        digest = hashlib.sha256()
        with writing(self.target), self.target.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                digest.update(piece)
        if digest.hexdigest() != self.remote.sha256:
            raise DigestMismatch(
                f"{shown(self.remote.url)} has SHA-256 {digest.hexdigest()}; {self.remote.sha256} is expected"
            )
