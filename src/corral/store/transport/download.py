"""One file over HTTP into one file on disk: resumed, retried, checked; in parallel ranges where that pays."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import BinaryIO

import httpx

from corral.errors import DigestMismatch, DownloadError
from corral.store.transport.client import Patience, describe, shown
from corral.store.transport.ranges import NoRanges, RangedTransfer, Streams, is_worthwhile, state_path
from corral.store.transport.transfer import (
    AccessRefused,
    Break,
    Progress,
    Remote,
    check_answer,
    check_room,
    wait_s,
    writing,
)

__all__ = ["AccessRefused", "Progress", "Remote", "Streams", "discard", "download"]

_READ_BYTES = 1 << 22


def download(
    client: httpx.Client,
    remote: Remote,
    target: Path,
    patience: Patience,
    on_progress: Progress,
    streams: Streams | None = None,
) -> None:
    """Fetch `remote` into `target`, going on where an earlier try stopped.

    Raises:
        DownloadError: refused, no file, or broken off too often; what arrived stays for the next try.
        DigestMismatch: complete, but not what was promised; `target` is gone.
        DiskFull: says how much is missing.
    """
    had_bytes = target.exists() and target.stat().st_size > 0
    streams = streams or Streams()
    try:
        _fetch(client, remote, target, patience, on_progress, streams)
    except DigestMismatch:
        discard(target)
        if not had_bytes:
            raise
        # The part found on disk may have been the wrong one: once more, from the first byte.
        try:
            _fetch(client, remote, target, patience, on_progress, streams)
        except DigestMismatch:
            discard(target)
            raise


def discard(target: Path) -> None:
    """Forget what has arrived of `target`."""
    target.unlink(missing_ok=True)
    state_path(target).unlink(missing_ok=True)


def _fetch(
    client: httpx.Client, remote: Remote, target: Path, patience: Patience, on_progress: Progress, streams: Streams
) -> None:
    if is_worthwhile(remote, target, streams):
        try:
            RangedTransfer(client, remote, target, patience, on_progress, streams).run()
            return
        except NoRanges:
            discard(target)  # holes cannot be filled there
    _Transfer(client, remote, target, patience, on_progress).run()


class _Transfer:
    """One stream, hashed as it arrives."""

    def __init__(
        self, client: httpx.Client, remote: Remote, target: Path, patience: Patience, on_progress: Progress
    ) -> None:
        self.client = client
        self.remote = remote
        self.target = target
        self.patience = patience
        self.on_progress = on_progress
        self.done = 0
        self.digest = hashlib.sha256()
        self.etag: str | None = None

    def run(self) -> None:
        """All tries of one file."""
        with writing(self.target), self.target.open("ab+") as file:
            self._take_over(file)
            self._try_until_whole(file)
            file.flush()
        self._check_digest()

    def _take_over(self, file: BinaryIO) -> None:
        """Hash what an earlier try left."""
        file.seek(0)
        while piece := file.read(_READ_BYTES):
            self.digest.update(piece)
            self.done += len(piece)
        if self.remote.size_bytes is not None and self.done > self.remote.size_bytes:
            self._start_over(file)

    def _start_over(self, file: BinaryIO) -> None:
        file.truncate(0)
        self.done = 0
        self.digest = hashlib.sha256()

    def _missing(self) -> int | None:
        return None if self.remote.size_bytes is None else self.remote.size_bytes - self.done

    def _try_until_whole(self, file: BinaryIO) -> None:
        if (missing := self._missing()) is not None:
            check_room(self.target, missing)
        failures = 0
        has_gained = False
        while self._missing() != 0:
            before = self.done
            try:
                self._try(file)
                return
            except Break as error:
                gained = self.done > before
                has_gained = has_gained or gained
                failures = 1 if gained else failures + 1
                if failures > self.patience.tries(has_gained, error.retry_after_s):
                    raise DownloadError(f"{shown(self.remote.url)}: {error}; gave up after {failures} tries") from error
                time.sleep(wait_s(failures, self.patience.backoff_s, error.retry_after_s))

    def _try(self, file: BinaryIO) -> None:
        headers = dict(self.remote.headers)
        if self.done:
            headers["Range"] = f"bytes={self.done}-"
            if self.etag:
                headers["If-Range"] = self.etag
        auth = self.remote.auth or httpx.USE_CLIENT_DEFAULT
        try:
            with self.client.stream("GET", self.remote.url, headers=headers, auth=auth) as response:
                self._check_answer(response, file)
                total = self._total(response)
                self.on_progress(self.done, total, self.remote.label)
                for piece in response.iter_raw():  # as it comes: a piece size would hold back what a break then loses
                    self._take(file, piece)
                    self.on_progress(self.done, total, self.remote.label)
        except httpx.TransportError as error:
            file.flush()
            raise Break(describe(error, self.remote.url)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DownloadError(f"{shown(self.remote.url)}: {error}") from error
        if total is not None and self.done < total:
            raise Break(f"ended after {self.done} of {total} bytes")

    def _take(self, file: BinaryIO, piece: bytes) -> None:
        file.write(piece)
        self.digest.update(piece)
        self.done += len(piece)
        if self.remote.size_bytes is not None and self.done > self.remote.size_bytes:
            raise DigestMismatch(
                f"{shown(self.remote.url)} sends more than the {self.remote.size_bytes} bytes promised"
            )

    def _check_answer(self, response: httpx.Response, file: BinaryIO) -> None:
        """Accept the beginning of a body that continues or replaces what is there; refuse all else."""
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and self.done:
            self._start_over(file)
            raise Break("has no bytes where the earlier try stopped")
        check_answer(response)
        if response.status_code == httpx.codes.OK and self.done:
            self._start_over(file)  # no ranges there, or the file has changed
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
            if start != str(self.done):
                self._start_over(file)
                raise Break(f"sent a range from byte {start!r} that was not asked for")
        etag = response.headers.get("ETag", "")
        self.etag = etag if etag.startswith('"') else None  # a weak one does not promise equal bytes

    def _total(self, response: httpx.Response) -> int | None:
        length = response.headers.get("Content-Length", "")
        total = self.done + int(length) if length.isdecimal() else self.remote.size_bytes
        if self.remote.size_bytes is not None and total != self.remote.size_bytes:
            raise DigestMismatch(f"{shown(self.remote.url)} has {total} bytes; {self.remote.size_bytes} are expected")
        if total is not None:
            check_room(self.target, total - self.done)
        return total

    def _check_digest(self) -> None:
        expected = self.remote.sha256
        if expected is not None and self.digest.hexdigest() != expected:
            raise DigestMismatch(
                f"{shown(self.remote.url)} has SHA-256 {self.digest.hexdigest()}; {expected} is expected"
            )
