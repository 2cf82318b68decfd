"""One file over HTTP into one file on disk: resumed, retried, hashed as it arrives."""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import httpx

from corral.errors import DigestMismatch, DiskFull, DownloadError
from corral.store.http_client import Patience, describe, shown

_READ_BYTES = 1 << 22
_MAX_WAIT_S = 30.0
_RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class Progress(Protocol):
    """Told of each piece: bytes there, bytes in all (None: not known), what is arriving. 0 of None is a mere notice."""

    def __call__(self, done: int, total: int | None, label: str, /) -> None: ...


class AccessRefused(DownloadError):
    """The server wants other credentials (401, 403, 407)."""


@dataclass(frozen=True, slots=True)
class Remote:
    """What to fetch; `size_bytes` and `sha256` (hex) are promises to hold it to, where known."""

    url: str
    label: str
    size_bytes: int | None = None
    sha256: str | None = None
    auth: httpx.BasicAuth | None = None
    headers: tuple[tuple[str, str], ...] = ()


def download(client: httpx.Client, remote: Remote, target: Path, patience: Patience, on_progress: Progress) -> None:
    """Fetch `remote` into `target`, going on where an earlier try stopped.

    Raises:
        DownloadError: refused, no file, or broken off too often; what arrived stays for the next try.
        DigestMismatch: complete, but not what was promised; `target` is gone.
        DiskFull: says how much is missing.
    """
    had_bytes = target.exists() and target.stat().st_size > 0
    try:
        _Transfer(client, remote, target, patience, on_progress).run()
    except DigestMismatch:
        target.unlink(missing_ok=True)
        if not had_bytes:
            raise
        # The part found on disk may have been the wrong one: once more, from the first byte.
        _Transfer(client, remote, target, patience, on_progress).run()


class _Break(Exception):
    """A failure that another try may mend."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class _Transfer:
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
        try:
            with self.target.open("ab+") as file:
                self._take_over(file)
                self._try_until_whole(file)
                file.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise DownloadError(f"cannot write {self.target}: {error.strerror or error}") from error
            raise _disk_full(self.target, self._missing()) from error
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
        if (missing := self._missing()) is not None and missing > shutil.disk_usage(self.target.parent).free:
            raise _disk_full(self.target, missing)
        failures = 0
        has_gained = False
        while self._missing() != 0:
            before = self.done
            try:
                self._try(file)
                return
            except _Break as error:
                gained = self.done > before
                has_gained = has_gained or gained
                failures = 1 if gained else failures + 1
                if failures > (self.patience.retries if has_gained else 1):
                    raise DownloadError(f"{shown(self.remote.url)}: {error}; gave up after {failures} tries") from error
                wait_s = max(self.patience.backoff_s * 2 ** (failures - 1), error.retry_after_s)
                time.sleep(min(wait_s, _MAX_WAIT_S))

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
            raise _Break(describe(error, self.remote.url)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DownloadError(f"{shown(self.remote.url)}: {error}") from error
        if total is not None and self.done < total:
            raise _Break(f"ended after {self.done} of {total} bytes")

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
        status = response.status_code
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and self.done:
            self._start_over(file)
            raise _Break("has no bytes where the earlier try stopped")
        if status in _RETRY_STATUS:
            raise _Break(f"answered {status} {response.reason_phrase}", _retry_after_s(response))
        if status in (401, 403, 407):
            raise AccessRefused(f"{shown(response.url)} refused with {status} {response.reason_phrase}")
        if status not in (200, 206):
            raise DownloadError(f"{shown(response.url)} answered {status} {response.reason_phrase}")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise DownloadError(
                f"{shown(response.url)} sent a web page in place of the file; "
                "is there a login page or a filter between this machine and the network?"
            )
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError(f"{shown(response.url)} sent {response.headers['Content-Encoding']} unasked")
        if status == httpx.codes.OK and self.done:
            self._start_over(file)  # no ranges there, or the file has changed
        if status == httpx.codes.PARTIAL_CONTENT:
            start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
            if start != str(self.done):
                self._start_over(file)
                raise _Break(f"sent a range from byte {start!r} that was not asked for")
        etag = response.headers.get("ETag", "")
        self.etag = etag if etag.startswith('"') else None  # a weak one does not promise equal bytes

    def _total(self, response: httpx.Response) -> int | None:
        length = response.headers.get("Content-Length", "")
        total = self.done + int(length) if length.isdecimal() else self.remote.size_bytes
        if self.remote.size_bytes is not None and total != self.remote.size_bytes:
            raise DigestMismatch(f"{shown(self.remote.url)} has {total} bytes; {self.remote.size_bytes} are expected")
        if total is not None and total - self.done > shutil.disk_usage(self.target.parent).free:
            raise _disk_full(self.target, total - self.done)
        return total

    def _check_digest(self) -> None:
        expected = self.remote.sha256
        if expected is not None and self.digest.hexdigest() != expected:
            raise DigestMismatch(
                f"{shown(self.remote.url)} has SHA-256 {self.digest.hexdigest()}; {expected} is expected"
            )


def _retry_after_s(response: httpx.Response) -> float:
    value: str = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def _disk_full(target: Path, missing: int | None) -> DiskFull:
    free = shutil.disk_usage(target.parent).free
    need = f"{missing / 1e6:,.0f} MB more are needed, " if missing is not None else ""
    return DiskFull(
        f"no room in {target.parent}: {need}{free / 1e6:,.0f} MB are free. "
        "Make room, or set CORRAL_HOME to a folder on another disk; what has arrived is kept"
    )
