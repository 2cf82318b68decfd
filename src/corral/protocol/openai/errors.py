"""OpenAI's error object, and which HTTP status each error of ours has. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from corral.errors import (
    CorralError,
    DeadlineExceeded,
    EngineDead,
    InsufficientMemory,
    InvalidModelName,
    InvalidRequest,
    KeyRefused,
    ModelNotFound,
    PermissionDenied,
    PoisonousRequest,
    QueueFull,
    QuotaExceeded,
    ServerDraining,
    StorageError,
    TenantQueueFull,
    WaitTooLong,
)
from corral.protocol.private import without_folders
from corral.protocol.sse import encode_event

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
RATE_LIMIT_ERROR = "rate_limit_error"
DRAINING_RETRY_AFTER_S = 5
# Codes of errors that the server's log explains.
IN_LOG = frozenset({"internal_error", "engine_dead", "storage_error", "poisonous_request"})


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An HTTP error: status, OpenAI's error fields, and headers such as Retry-After."""

    status: int
    message: str
    type: str = INVALID_REQUEST
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        return msgspec.json.encode(self._payload())

    def event(self) -> bytes:
        """The same object as a server-sent event, for a stream that fails half-way."""
        return encode_event(self._payload())

    def naming(self, request_id: str) -> ErrorReply:
        """The reply with the request's id in its text where the log has more of it, so that a user can quote it."""
        return replace(self, message=f"{self.message} (request {request_id})") if self.code in IN_LOG else self

    def _payload(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def reply_to(error: Exception) -> ErrorReply:
    """The reply that an error deserves; an error not raised on purpose says nothing about our insides."""
    match error:
        case InvalidRequest():
            return ErrorReply(400, error.message, param=error.param, code=error.code)
        case InvalidModelName():
            return ErrorReply(400, str(error), param="model", code="invalid_value")
        case ModelNotFound():
            return ErrorReply(404, str(error), param="model", code="model_not_found")
        case TenantQueueFull():
            headers = {"Retry-After": str(error.retry_after_s)}
            return ErrorReply(429, str(error), RATE_LIMIT_ERROR, code="key_queue_full", headers=headers)
        case WaitTooLong():
            headers = {"Retry-After": str(error.retry_after_s)}
            return ErrorReply(503, str(error), SERVER_ERROR, code="wait_too_long", headers=headers)
        case QuotaExceeded():
            return _over_quota(error)
        case DeadlineExceeded():
            return ErrorReply(504, str(error), SERVER_ERROR, code="deadline_exceeded")
        case KeyRefused():
            return unauthorized(str(error))
        case PermissionDenied():
            return forbidden(str(error))
        case QueueFull():
            headers = {"Retry-After": str(error.retry_after_s)}
            return ErrorReply(503, str(error), SERVER_ERROR, code="queue_full", headers=headers)
        case ServerDraining():
            headers = {"Retry-After": str(DRAINING_RETRY_AFTER_S)}
            return ErrorReply(503, str(error), SERVER_ERROR, code="server_draining", headers=headers)
        case PoisonousRequest():
            return ErrorReply(422, str(error), code="poisonous_request")
        case EngineDead():
            # Its text holds a signal and lines of the worker's log, which are the operator's, not the client's.
            headers = {"Retry-After": str(DRAINING_RETRY_AFTER_S)}
            message = "the model's worker process has died; the server's log says why"
            return ErrorReply(503, message, SERVER_ERROR, code="engine_dead", headers=headers)
        case InsufficientMemory():
            return ErrorReply(503, without_folders(str(error)), SERVER_ERROR, code="insufficient_memory")
        case StorageError():
            # Its text holds a path, which is the operator's.
            status, headers = {"busy": (503, {"Retry-After": "1"}), "full": (507, {})}.get(error.reason, (500, {}))
            message = f"the server's storage is {error.reason}" if status != 500 else "the server's storage failed"
            return ErrorReply(
                status, f"{message}; its log says why", SERVER_ERROR, code="storage_error", headers=headers
            )
        case CorralError():
            message = "the server could not do this; its log says why"
            return ErrorReply(500, message, SERVER_ERROR, code="internal_error")
    return ErrorReply(500, "internal error; the server's log says more", SERVER_ERROR, code="internal_error")


def _over_quota(error: QuotaExceeded) -> ErrorReply:
    """As OpenAI tells limits of a rate from a budget that is used up; its and Anthropic's clients know both headers."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.is_for_today or error.retry_after_s is None:
        headers["X-Should-Retry"] = "false"
    code = "insufficient_quota" if error.is_for_today else "rate_limit_exceeded"
    kind = code if error.is_for_today else error.kind
    return ErrorReply(429, str(error), kind, code=code, headers=headers)


def unauthorized(message: str) -> ErrorReply:
    return ErrorReply(401, message, code="invalid_api_key", headers={"WWW-Authenticate": 'Bearer realm="corral"'})


def forbidden(message: str) -> ErrorReply:
    return ErrorReply(403, message, code="permission_denied")


def foreign_host() -> ErrorReply:
    message = (
        "the Host header names another server; call this one by its address or as localhost, or give it an API key"
    )
    return ErrorReply(403, message, code="foreign_host")


def foreign_origin() -> ErrorReply:
    message = (
        "the web page's origin is not allowed here; the operator can allow it with CORRAL_ORIGINS (or OLLAMA_ORIGINS)"
    )
    return ErrorReply(403, message, code="foreign_origin")


def not_found(path: str) -> ErrorReply:
    return ErrorReply(404, f"there is no route {path[:200]}", code="not_found")


def method_not_allowed(method: str, path: str, allow: str) -> ErrorReply:
    message = f"{method[:20]} is not allowed on {path[:200]}; allowed: {allow}"
    return ErrorReply(405, message, code="method_not_allowed", headers={"Allow": allow})


def request_timeout(seconds: float, num_bytes: int, min_rate: int) -> ErrorReply:
    message = f"{num_bytes} bytes of the body have arrived after {seconds:g} s of waiting; at least {min_rate} bytes a "
    return ErrorReply(408, f"{message}second are expected", code="request_timeout", headers={"Connection": "close"})


def body_too_large(max_body_bytes: int, given: int | None = None) -> ErrorReply:
    """`given` where the request's head says it."""
    told = f"the body has {given} bytes; at most" if given is not None else "the body is larger than the"
    return ErrorReply(413, f"{told} {max_body_bytes} bytes are allowed", code="body_too_large")


def unsupported_media_type(given: str) -> ErrorReply:
    message = f"the content type is {given[:100]!r}; it must be application/json"
    return ErrorReply(415, message, code="unsupported_media_type")


def too_many_connections(*, of_address: bool) -> ErrorReply:
    whose = "of this address " if of_address else ""
    return ErrorReply(
        429 if of_address else 503,
        f"too many connections {whose}are open; close some, or try again later",
        INVALID_REQUEST if of_address else SERVER_ERROR,
        code="too_many_connections",
        headers={"Retry-After": "1", "Connection": "close"},
    )


def headers_too_large(max_header_bytes: int) -> ErrorReply:
    return ErrorReply(431, f"the request's head is larger than {max_header_bytes} bytes", code="headers_too_large")
