"""Anthropic's error object, and which of its types each error of ours has. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from corral.protocol.openai.errors import ErrorReply, reply_to
from corral.protocol.sse import encode_named_event

OVERLOADED = 529  # Anthropic's own status: too many ask, come again
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class AnthropicError:
    """An HTTP error: status, Anthropic's type, text, and headers such as Retry-After."""

    status: int
    type: str
    message: str
    headers: dict[str, str] = field(default_factory=dict)

    def body(self, request_id: str) -> bytes:
        return msgspec.json.encode(self._payload(request_id))

    def event(self, request_id: str) -> bytes:
        """The same object as a server-sent event, for a stream that fails half-way."""
        return encode_named_event("error", self._payload(request_id))

    def _payload(self, request_id: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": self.type, "message": self.message}, "request_id": request_id}


def from_reply(reply: ErrorReply) -> AnthropicError:
    """OpenAI's reply in Anthropic's words."""
    status = OVERLOADED if reply.code in ("queue_full", "wait_too_long") else reply.status
    default = "api_error" if status >= 500 else "invalid_request_error"
    return AnthropicError(status, _TYPES.get(status, default), reply.message, reply.headers)


def anthropic_error(error: Exception, request_id: str) -> AnthropicError:
    """The reply that an error deserves; an error not raised on purpose says nothing about our insides."""
    return from_reply(reply_to(error).naming(request_id))
