"""What a request may cost before its fields are read: bytes and time of the body, and its type."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral.config import ServerConfig
from corral.errors import InvalidRequest
from corral.limits import MAX_FILE_BYTES, MAX_UPLOAD_FORM_BYTES
from corral.protocol.json_body import parse_json_body
from corral.protocol.openai.errors import ErrorReply, body_too_large, request_timeout, unsupported_media_type
from corral.server.live_settings import LiveSettings
from corral.server.replies import send_reply

UPLOAD_PATH = "/v1/files"
BLOB_PATH = "/api/blobs/"  # model files, which go to disk as they come
PARSE_INLINE_BYTES = 256 << 10  # larger bodies are parsed off the event loop, so that no stream stutters


class RefusedError(Exception):
    """A request that got its answer before it was understood."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(reply.message)
        self.reply = reply


class BodyLimit:
    """Refuses bodies that are too large, by Content-Length at once and while a chunked one arrives, or too slow.

    Blobs have the size that they have; the disk is their limit.
    """

    def __init__(self, app: ASGIApp, settings: LiveSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._max_bytes(scope["path"])
        for name, value in scope["headers"]:
            # The HTTP parser has let only digits through; a body that is longer than it says never gets here.
            if name == b"content-length" and max_bytes is not None and int(value) > max_bytes:
                await send_reply(scope, send, body_too_large(max_bytes, int(value)))
                return
        await self._app(scope, _BodyReader(receive, self._settings.config, max_bytes), send)

    def _max_bytes(self, path: str) -> int | None:
        if path.startswith(BLOB_PATH):
            return None
        return MAX_FILE_BYTES + MAX_UPLOAD_FORM_BYTES if path == UPLOAD_PATH else self._settings.config.max_body_bytes


class _BodyReader:
    """`receive` of one request. Only the time that we wait for the client counts against it."""

    def __init__(self, receive: Receive, config: ServerConfig, max_bytes: int | None) -> None:
        self._receive = receive
        self._config = config
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._waited_s = 0.0
        self._is_whole = False

    async def __call__(self) -> Message:
        if self._is_whole:
            return await self._receive()
        loop = asyncio.get_running_loop()
        started = loop.time()
        allowed_s = self._config.body_timeout_s + self._num_bytes / self._config.min_body_rate
        try:
            async with asyncio.timeout_at(started + allowed_s - self._waited_s):
                message = await self._receive()
        except TimeoutError:
            waited_s = round(self._waited_s + loop.time() - started, 1)
            raise RefusedError(request_timeout(waited_s, self._num_bytes, self._config.min_body_rate)) from None
        self._waited_s += loop.time() - started
        self._num_bytes += len(message.get("body", b""))
        if self._max_bytes is not None and self._num_bytes > self._max_bytes:
            raise RefusedError(body_too_large(self._max_bytes))
        self._is_whole = not message.get("more_body", False)
        return message


async def read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        RefusedError: wrong content type; also what BodyLimit refuses.
        InvalidRequest: not a JSON object.
        starlette.requests.ClientDisconnect: the client went away before it was whole.
    """
    _check_type(request)
    return await _parse(await request.body())


async def read_any_json(request: Request) -> dict[str, Any]:
    """As read_json, whatever the body calls itself, as Ollama does: `curl -d` says that it is a form.

    OriginGuard keeps away the web pages that could send one.

    Raises:
        InvalidRequest: also for a body that is empty.
    """
    _check_encoding(request)
    body = await request.body()
    if not body.strip():
        raise InvalidRequest("missing request body", code="invalid_json")
    return await _parse(body)


async def _parse(body: bytes) -> dict[str, Any]:
    if len(body) <= PARSE_INLINE_BYTES:
        return parse_json_body(body)
    return await asyncio.to_thread(parse_json_body, body)


def _check_type(request: Request) -> None:
    # A form or text/plain is what a browser sends across origins without asking; JSON it must ask for.
    given = request.headers.get("content-type", "application/json")
    if given.partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(unsupported_media_type(given))
    _check_encoding(request)


def _check_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise RefusedError(unsupported_media_type(f"application/json, encoded as {encoding}"))
