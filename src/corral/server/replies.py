"""Error replies in the form that the request's clients know, and straight onto the wire for middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.protocol.anthropic.errors import AnthropicError, from_reply
from corral.protocol.ollama.errors import NO_SUCH_METHOD, NO_SUCH_ROUTE, encode_error, ollama_error
from corral.protocol.openai.errors import ErrorReply, reply_to

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope, Send

MESSAGES, MODELS = "/v1/messages", "/v1/models"
VERSION_HEADER = b"anthropic-version"
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


def is_native(path: str) -> bool:
    """Whether the path belongs to Ollama's API."""
    return path == "/" or path == "/api" or path.startswith("/api/")


def is_messages(path: str) -> bool:
    """Whether the path belongs to Anthropic's API alone."""
    return path == MESSAGES or path.startswith(f"{MESSAGES}/")


def is_anthropic(scope: Scope) -> bool:
    """Whether the request is of Anthropic's API. The models have OpenAI's path, but its clients say who they are."""
    path = scope["path"]
    if is_messages(path):
        return True
    return (path == MODELS or path.startswith(f"{MODELS}/")) and any(
        name == VERSION_HEADER for name, _ in scope["headers"]
    )


def response_of(scope: Scope, reply: ErrorReply) -> Response:
    """An error as the request's API has it: OpenAI's object, Ollama's below /api, Anthropic's below /v1/messages."""
    from starlette.responses import Response  # a drain's end is known before HTTP is

    request_id = _refuse(scope, reply)
    if is_anthropic(scope):
        return _anthropic_response(from_reply(reply.naming(request_id)), request_id)
    if not is_native(scope["path"]):
        return Response(reply.naming(request_id).body(), reply.status, reply.headers, _JSON)
    match reply.code:
        case "not_found":
            body, media_type = NO_SUCH_ROUTE, _TEXT
        case "method_not_allowed":
            body, media_type = NO_SUCH_METHOD, _TEXT
        case _:
            body, media_type = encode_error(reply.naming(request_id).message), _JSON
    return Response(body, reply.status, reply.headers, media_type)


def error_response(scope: Scope, error: Exception) -> Response:
    """The same of an error that a route has raised, which Ollama's API has its own words for."""
    from starlette.responses import Response

    if not is_native(scope["path"]):
        return response_of(scope, reply_to(error))
    native = ollama_error(error).naming(_refuse(scope, reply_to(error)))
    return Response(native.body(), native.status, native.headers, f"{_JSON}; charset=utf-8")


def _refuse(scope: Scope, reply: ErrorReply) -> str:
    """The id of the request, in whose exchange the refusal is booked."""
    from corral.server.exchange import exchange_of

    exchange = exchange_of(scope)
    exchange.refusal = reply.code or reply.type
    return exchange.request_id


def _anthropic_response(error: AnthropicError, request_id: str) -> Response:
    from starlette.responses import Response

    return Response(error.body(request_id), error.status, error.headers, _JSON)


async def send_reply(scope: Scope, send: Send, reply: ErrorReply) -> None:
    """Answers a request without calling the app."""
    response = response_of(scope, reply)
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body})
