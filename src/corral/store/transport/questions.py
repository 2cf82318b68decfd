"""Small questions over HTTP: an answer with a bounded body, within a bounded time, asked again where that may help."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from corral.errors import DownloadError
from corral.store.transport.client import Patience, describe, printable, shown, within
from corral.store.transport.transfer import RETRY_STATUS, wait_s

MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with its whole body."""

    status: int
    reason: str
    headers: httpx.Headers
    body: bytes
    url: httpx.URL

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            DownloadError: it is none; says what it looks like.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            kind = printable(self.headers.get("Content-Type", "nothing that has a type"))
            raise DownloadError(
                f"{shown(self.url)} sent no JSON but {kind}; "
                "is there a login page or a filter between this machine and the network?"
            ) from None


def ask(
    client: httpx.Client,
    url: httpx.URL | str,
    patience: Patience,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    auth: httpx.Auth | None = None,
    content: bytes | None = None,
    max_bytes: int = MAX_BYTES,
) -> Reply:
    """What the server says, whatever the status; a broken connection and a busy server are forgiven as in downloads.

    Raises:
        DownloadError: no answer, or one without an end.
    """
    host = httpx.URL(url).netloc.decode().rpartition("@")[2]
    failures = 0
    while True:
        failures += 1
        try:
            reply = within(
                patience.answer_s, host, lambda: _once(client, url, method, headers, auth, content, max_bytes)
            )
        except httpx.TransportError as error:
            if failures > patience.tries(False, 0.0):
                raise DownloadError(describe(error, url)) from error
            time.sleep(wait_s(failures, patience.backoff_s, 0.0))
            continue
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DownloadError(f"{shown(url)}: {error}") from error
        later_s = float(reply.headers.get("Retry-After", "0") if _has_wait(reply) else 0)
        if reply.status not in RETRY_STATUS or failures > patience.tries(False, later_s):
            return reply
        time.sleep(wait_s(failures, patience.backoff_s, later_s))


def _has_wait(reply: Reply) -> bool:
    return str(reply.headers.get("Retry-After", "")).isdecimal()


def _once(
    client: httpx.Client,
    url: httpx.URL | str,
    method: str,
    headers: Mapping[str, str] | None,
    auth: httpx.Auth | None,
    content: bytes | None,
    max_bytes: int,
) -> Reply:
    with client.stream(
        method, url, headers=headers, auth=auth or httpx.USE_CLIENT_DEFAULT, content=content
    ) as response:
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > max_bytes:
                raise DownloadError(f"{shown(url)} sends more than the {max_bytes:,} bytes that its answer may have")
        return Reply(response.status_code, response.reason_phrase, response.headers, bytes(body), response.url)
