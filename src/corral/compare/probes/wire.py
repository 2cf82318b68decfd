"""HTTP/1.1 by hand: requests that no library would send, and replies as they came."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httptools

from corral.compare.exchange import Origin, tls_of

MOST_BODY = 4 << 20  # bytes of a reply that are kept
MOST_HEADERS = 256
_SHOWN = 160  # characters of a reply that stand in the evidence
_CLOSE_S = 1.0

Headers = Mapping[str, str]


@dataclass(slots=True)
class Reply:
    """What came.

    Args:
        status: 0 where none came.
        headers: names in lower case; several of one name are joined by commas.
        fault: why there is no whole reply; "" if there is.
        seconds: from the first byte sent to the end.
        sent: bytes of the body that went out, where it was poured.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    fault: str = ""
    seconds: float = 0.0
    sent: int = 0

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300 and not self.fault

    def json(self) -> Any:
        """None where it is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def told(self, most: int = _SHOWN) -> str:
        """The status and the beginning of the body, in a line."""
        if not self.status:
            return f"no answer ({self.fault or 'closed'})"
        fault = f" ({self.fault})" if self.fault else ""
        return f"{self.status}{fault} {line_of(self.body, most)}".rstrip()


def line_of(data: bytes | str, most: int = _SHOWN) -> str:
    """Some of a text in a line, without characters that a page could not show."""
    text = data[: 4 * most].decode("utf-8", "replace") if isinstance(data, bytes) else data[: 4 * most]
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else f"{line[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def head_of(origin: Origin, method: str, path: str, headers: Headers) -> bytes:
    """A request's head. `path` is sent as it stands, so it may be anything but a line's end."""
    fields = {"Host": origin.authority, "User-Agent": "corral-compare", "Connection": "close", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1", "replace")


def request_of(origin: Origin, method: str, path: str, headers: Headers, body: bytes = b"") -> bytes:
    """A whole request."""
    length = {"Content-Length": str(len(body))} if body or method in ("POST", "PUT", "PATCH", "DELETE") else {}
    return head_of(origin, method, path, {**length, **headers}) + body


class Talk:
    """One connection with one request; what comes is read all the time. Use `talk`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reply = Reply()
        self.is_over = False
        self.is_eof = False  # the other side has closed
        self._reader, self._writer = reader, writer
        self._body = bytearray()
        self._parser = httptools.HttpResponseParser(self)
        self._news = asyncio.Event()
        self._began = time.perf_counter()
        self._is_head = False
        self._has_length = False
        self._task = asyncio.get_running_loop().create_task(self._read())

    async def write(self, data: bytes) -> bool:
        """Whether it could be sent."""
        if self.is_eof:
            return False
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (OSError, ssl.SSLError):
            return False
        return True

    async def pour(self, pieces: Iterable[bytes]) -> None:
        """Sends a body piece by piece until a status comes or the other side closes."""
        for piece in pieces:
            if self.reply.status or self.is_over or not await self.write(piece):
                return
            self.reply.sent += len(piece)
            await asyncio.sleep(0)

    async def wait(self, is_enough: Callable[[Reply], bool] | None = None) -> Reply:
        """Until the reply is over or enough; how long is the caller's to bound."""
        while not self.is_over:
            self._news.clear()
            if is_enough is not None and is_enough(self.snapshot()):
                break
            await self._news.wait()
        return self.snapshot()

    def snapshot(self) -> Reply:
        """What has come so far."""
        self.reply.body = bytes(self._body)
        return self.reply

    async def close(self) -> None:
        """Drops the connection."""
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=_CLOSE_S)
        self._writer.transport.abort()

    async def _read(self) -> None:
        try:
            while not self.is_over:
                data = await self._reader.read(1 << 16)
                if not data:
                    self.is_eof = True
                    self._lost("closed")
                    return
                self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"no HTTP: {line_of(str(error))}")
        except (OSError, ssl.SSLError):
            self.is_eof = True
            self._lost("reset")

    def _lost(self, how: str) -> None:
        if self._is_head and not self._has_length:
            self._end("")  # a body of unknown length lasts until the connection ends
        else:
            self._end(f"{how} in the middle" if self._is_head else f"{how} without a word")

    def _end(self, fault: str) -> None:
        if not self.is_over:
            self.is_over = True
            self.reply.fault = fault
            self.reply.seconds = time.perf_counter() - self._began
        self._news.set()

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        if key in ("content-length", "transfer-encoding"):
            self._has_length = True
        headers = self.reply.headers
        if len(headers) < MOST_HEADERS:
            headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        if (status := self._parser.get_status_code()) >= 200:
            self._is_head = True
            self.reply.status = status
            self._news.set()
        else:
            self.reply.headers.clear()

    def on_body(self, part: bytes) -> None:
        self._body += part
        if len(self._body) > MOST_BODY:
            self._end(f"more than {MOST_BODY} bytes came")
        self._news.set()

    def on_message_complete(self) -> None:
        if self._is_head:
            self._end("")


@asynccontextmanager
async def talk(origin: Origin, *, timeout_s: float = 10.0) -> AsyncIterator[Talk]:
    """A connection of its own. Raises OSError or TimeoutError where there is none."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(origin.host, origin.port, ssl=tls_of(origin), limit=1 << 18)
    conversation = Talk(reader, writer)
    try:
        yield conversation
    finally:
        await conversation.close()


async def send(
    origin: Origin, request: bytes, *, timeout_s: float, is_enough: Callable[[Reply], bool] | None = None
) -> Reply:
    """Sends a request and reads its reply. It never raises: the reply's `fault` tells what went wrong.

    Args:
        is_enough: ends the reading before the reply's end.
    """
    try:
        async with talk(origin, timeout_s=timeout_s) as conversation:
            try:
                async with asyncio.timeout(timeout_s):
                    await conversation.write(request)
                    await conversation.wait(is_enough)
            except TimeoutError:
                conversation.reply.fault = f"nothing more in {timeout_s:g} s"
                conversation.reply.seconds = timeout_s
            return conversation.snapshot()
    except TimeoutError:
        return Reply(fault=f"no connection in {timeout_s:g} s", seconds=timeout_s)
    except OSError as error:
        return Reply(fault=f"no connection: {line_of(error.strerror or str(error))}")
