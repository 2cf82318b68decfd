"""What a request may cost before its fields are read: bytes and time of the body, and its type."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral.errors import InvalidRequest
from corral.protocol.json_body import parse_json_body
from corral.protocol.openai.errors import ErrorReply, body_too_large, request_timeout, unsupported_media_type
from corral.server.replies import send_reply

BODY_TIMEOUT_S = 60.0
UPLOAD_PATH = "/v1/files"
MAX_UPLOAD_BYTES = (512 << 20) + (1 << 20)  # a file and the form around it
BLOB_PATH = "/api/blobs/"  # model files, which go to disk as they come
PARSE_INLINE_BYTES = 256 << 10  # larger bodies are parsed off the event loop, so that no stream stutters


class RefusedError(Exception):
    """A request that got its answer before it was understood."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(reply.message)
        self.reply = reply


class BodyLimit:
    """Refuses bodies above `max_body_bytes`: by Content-Length at once, and while a chunked one arrives.

    Blobs have the size that they have; the disk is their limit.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(BLOB_PATH):
            await self._app(scope, receive, send)
            return
        max_bytes = MAX_UPLOAD_BYTES if scope["path"] == UPLOAD_PATH else self._max_body_bytes
        for name, value in scope["headers"]:
            # The HTTP parser has let only digits through; a body that is longer than it says never gets here.
            if name == b"content-length" and int(value) > max_bytes:
                await send_reply(scope, send, body_too_large(max_bytes))
                return
        num_bytes = 0

        async def limited_receive() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > max_bytes:
                raise RefusedError(body_too_large(max_bytes))
            return message

        await self._app(scope, limited_receive, send)


async def read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        RefusedError: wrong content type, or too slow.
        InvalidRequest: not a JSON object.
        starlette.requests.ClientDisconnect: the client went away before it was whole.
    """
    _check_type(request)
    return await _parse(await _read_body(request))


async def read_any_json(request: Request) -> dict[str, Any]:
    """As read_json, whatever the body calls itself, as Ollama does: `curl -d` says that it is a form.

    OriginGuard keeps away the web pages that could send one.

    Raises:
        InvalidRequest: also for a body that is empty.
    """
    _check_encoding(request)
    body = await _read_body(request)
    if not body.strip():
        raise InvalidRequest("missing request body", code="invalid_json")
    return await _parse(body)


async def _read_body(request: Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.body()
    except TimeoutError:
        raise RefusedError(request_timeout(BODY_TIMEOUT_S)) from None


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
