"""Error replies in the form that the path's clients know, and straight onto the wire for middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.protocol.ollama_errors import NO_SUCH_METHOD, NO_SUCH_ROUTE, encode_error
from corral.protocol.openai_errors import ErrorReply

if TYPE_CHECKING:
    from starlette.types import Scope, Send

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


def is_native(path: str) -> bool:
    """Whether the path belongs to Ollama's API."""
    return path == "/" or path == "/api" or path.startswith("/api/")


def body_of(path: str, reply: ErrorReply) -> tuple[bytes, str]:
    """Body and content type of an error of `path`: OpenAI's object, or below /api Ollama's."""
    if not is_native(path):
        return reply.body(), _JSON
    match reply.code:
        case "not_found":
            return NO_SUCH_ROUTE, _TEXT
        case "method_not_allowed":
            return NO_SUCH_METHOD, _TEXT
    return encode_error(reply.message), _JSON


async def send_reply(scope: Scope, send: Send, reply: ErrorReply) -> None:
    """Answers a request without calling the app."""
    body, media_type = body_of(scope["path"], reply)
    headers = {"Content-Type": media_type, "Content-Length": str(len(body)), **reply.headers}
    raw_headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": raw_headers})
    await send({"type": "http.response.body", "body": body})
