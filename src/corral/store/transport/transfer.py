"""What every way of fetching a file shares: what to fetch, how it can fail, and which answers are acceptable."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx

from corral.errors import DiskFull, DownloadError
from corral.store.transport.client import shown

MAX_WAIT_S = 30.0
RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_BUSY_STATUS = frozenset({429, 503})


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


class Break(Exception):
    """A failure that another try may mend; `is_busy` if the server asks for fewer questions."""

    def __init__(self, reason: str, retry_after_s: float = 0.0, *, is_busy: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.is_busy = is_busy


def check_answer(response: httpx.Response) -> None:
    """Refuse whatever is no body of a file, or part of one.

    Raises:
        Break: another try may help; AccessRefused; DownloadError: it will not.
    """
    status = response.status_code
    if status in RETRY_STATUS:
        reason = f"answered {status} {response.reason_phrase}"
        raise Break(reason, _retry_after_s(response), is_busy=status in _BUSY_STATUS)
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


def wait_s(failures: int, backoff_s: float, retry_after_s: float) -> float:
    """How long to wait before the next try, after so many failures in a row."""
    return min(max(backoff_s * 2.0 ** (failures - 1), retry_after_s), MAX_WAIT_S)


def _retry_after_s(response: httpx.Response) -> float:
    value: str = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def check_room(target: Path, missing: int) -> None:
    """Raises DiskFull unless the disk of `target` has room for `missing` more bytes."""
    if missing > shutil.disk_usage(target.parent).free:
        raise disk_full(target, missing)


@contextmanager
def writing(target: Path, missing: int | None = None) -> Iterator[None]:
    """Turns what the system says while `target` is written into DiskFull or DownloadError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(f"cannot write {target}: {error.strerror or error}") from error
        raise disk_full(target, missing) from error


def disk_full(target: Path, missing: int | None) -> DiskFull:
    free = shutil.disk_usage(target.parent).free
    need = f"{missing / 1e6:,.0f} MB more are needed, " if missing is not None else ""
    return DiskFull(
        f"no room in {target.parent}: {need}{free / 1e6:,.0f} MB are free. "
        "Make room, or set CORRAL_MODELS to a folder on another disk; what has arrived is kept"
    )
