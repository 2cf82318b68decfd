"""One HTTP request on a connection of its own, with as little work per chunk as there can be.

On a machine with few cores the client takes from the server what it takes itself. A protocol that hands bytes from the
loop straight to httptools costs 17 to 30 us of CPU per chunk, parsing and all; httpx, which wakes a task and passes six
layers for a chunk, 73 to 103 (one core of Zen 4, eight streams).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools

from corral.config import ca_bundle
from corral.errors import InvalidConfig

OnHead = Callable[[int, str], None]  # the status and the content type
OnBody = Callable[[bytes], bool]  # some of the body; whether to go on


class ExchangeFailed(Exception):
    """The connection was refused, cut or silent; the text says which."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a server is; `path` goes in front of every route."""

    host: str
    port: int
    path: str = ""
    is_tls: bool = False

    def __str__(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """For the Host header."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def parse_origin(url: str) -> Origin:
    """http://127.0.0.1:8000, 127.0.0.1:8000, https://host/prefix; a /v1 at its end is left off.

    Raises:
        InvalidConfig: it is no such address.
    """
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InvalidConfig(f"{url!r} is no address of a server: {error}") from error
    odd = any(character.isspace() or not character.isprintable() for character in url)
    if parts.scheme not in ("http", "https") or not parts.hostname or odd:
        raise InvalidConfig(f"{url!r} is no address of a server; write one like http://127.0.0.1:8000")
    if parts.query or parts.fragment or parts.username is not None:
        raise InvalidConfig(f"{url!r} has more than scheme, host, port and path; a key goes to --api-key")
    is_tls = parts.scheme == "https"
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return Origin(parts.hostname, port or (443 if is_tls else 80), path, is_tls)


def request_bytes(origin: Origin, route: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A POST of JSON, whole."""
    fields = {
        "Host": origin.authority,
        "Content-Type": "application/json",
        "Accept": "text/event-stream, application/json",
        "User-Agent": "corral-bench",
        "Connection": "close",
        "Content-Length": str(len(body)),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {origin.path}{route} HTTP/1.1\r\n{head}\r\n".encode() + body


def check_header(name: str, value: str) -> None:
    """Raises InvalidConfig for what would break the request apart."""
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_.!#$%&'*+^`|~") for c in name):
        raise InvalidConfig(f"{name!r} cannot be the name of a header")
    if any((ord(c) < 32 and c != "\t") or ord(c) == 127 for c in value):
        raise InvalidConfig(f"the value of the header {name} has characters that no header may have")


def tls_of(origin: Origin) -> ssl.SSLContext | None:
    """Made once for a load: reading the authorities takes milliseconds."""
    return ssl.create_default_context(cafile=ca_bundle()) if origin.is_tls else None


async def exchange(
    origin: Origin,
    request: bytes,
    *,
    on_sent: Callable[[], None],
    on_head: OnHead,
    on_body: OnBody,
    patience_s: float,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Sends and reads until the answer's end, or until `on_body` wants no more.

    Args:
        patience_s: how long the server may say nothing.

    Raises:
        ExchangeFailed: there is no whole answer.
    """
    loop = asyncio.get_running_loop()
    protocol = _Exchange(loop, request, on_sent, on_head, on_body)
    try:
        async with asyncio.timeout(patience_s):
            await loop.create_connection(lambda: protocol, origin.host, origin.port, ssl=tls)
    except TimeoutError as error:
        raise ExchangeFailed(f"no connection within {patience_s:g} s") from error
    except OSError as error:
        raise ExchangeFailed(f"no connection: {error}") from error
    try:
        await protocol.wait(patience_s)
    finally:
        protocol.close()


class _Exchange(asyncio.Protocol):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        request: bytes,
        on_sent: Callable[[], None],
        on_head: OnHead,
        on_body: OnBody,
    ) -> None:
        self._loop, self._request = loop, request
        self._on_sent, self._on_head, self._on_body = on_sent, on_head, on_body
        self._parser = httptools.HttpResponseParser(self)
        self._over: asyncio.Future[str] = loop.create_future()  # "" or the fault
        self._transport: asyncio.Transport | None = None
        self._heard = loop.time()
        self._content_type = ""
        self._has_length = False
        self._is_in_body = False

    async def wait(self, patience_s: float) -> None:
        while not self._over.done():
            left_s = self._heard + patience_s - self._loop.time()
            if left_s <= 0:
                raise ExchangeFailed(f"nothing came for {patience_s:g} s")
            await asyncio.wait([self._over], timeout=left_s)
        if why := self._over.result():
            raise ExchangeFailed(why)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._heard = self._loop.time()
        self._on_sent()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._over.done():
            return
        self._heard = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"no HTTP came: {error}")

    def eof_received(self) -> None:
        self._lost("the connection was closed")

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(f"the connection was cut: {exc}" if exc else "the connection was closed")

    def _lost(self, why: str) -> None:
        if self._is_in_body and not self._has_length:
            self._end("")  # a body of unknown length lasts until the connection ends
        else:
            self._end(f"{why} {'in the middle of the answer' if self._is_in_body else 'before an answer'}")

    def _end(self, why: str) -> None:
        if not self._over.done():
            self._over.set_result(why)

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == b"content-type":
            self._content_type = value.decode("latin-1").strip().lower()
        elif lower in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # the others announce that the answer comes
            self._is_in_body = True
            self._on_head(status, self._content_type)

    def on_body(self, part: bytes) -> None:
        if not self._over.done() and not self._on_body(part):
            self._end("")

    def on_message_complete(self) -> None:
        if self._is_in_body:
            self._end("")
