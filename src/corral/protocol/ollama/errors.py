"""Ollama's error object, `{"error": text}`, and which HTTP status and text each error of ours has. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec

from corral.errors import (
    ContextLengthExceeded,
    CorralError,
    DeadlineExceeded,
    EngineDead,
    InvalidManifest,
    InvalidModelFile,
    InvalidModelName,
    InvalidRequest,
    InvalidVocabulary,
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

DRAINING_RETRY_AFTER_S = 5
BUSY = "server busy, please try again.  maximum pending requests exceeded"
RUNNER_DIED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check the server's log for details"
)
_LOG = "'s log "  # of the server, or of a worker
TOO_LONG = "the prompt is longer than the context length currently available to the model"
NO_SUCH_ROUTE = b"404 page not found"
NO_SUCH_METHOD = b"405 method not allowed"


@dataclass(frozen=True, slots=True)
class OllamaError:
    """An HTTP error: status, text, and headers such as Retry-After."""

    status: int
    message: str
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        return encode_error(self.message)

    def naming(self, request_id: str) -> OllamaError:
        """The error with the request's id in its text where that points to a log, so that a user can quote it."""
        return replace(self, message=f"{self.message} (request {request_id})") if _LOG in self.message else self

    def line(self) -> bytes:
        """The same object as the last line of a stream that fails half-way."""
        return self.body() + b"\n"


def encode_error(message: str) -> bytes:
    return msgspec.json.encode({"error": message})


def ollama_error(error: Exception) -> OllamaError:
    """The reply that an error deserves; an error not raised on purpose says nothing about our insides."""
    match error:
        case InvalidRequest():
            return OllamaError(400, error.message)
        case InvalidModelName():
            return OllamaError(400, str(error))
        case ModelNotFound():
            return OllamaError(404, str(error))
        case TenantQueueFull():
            return OllamaError(429, str(error), {"Retry-After": str(error.retry_after_s)})
        case WaitTooLong():
            return OllamaError(503, str(error), {"Retry-After": str(error.retry_after_s)})
        case QuotaExceeded():
            headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
            return OllamaError(429, str(error), headers)
        case DeadlineExceeded():
            return OllamaError(504, str(error))
        case KeyRefused():
            return OllamaError(401, str(error))
        case PermissionDenied():
            return OllamaError(403, str(error))
        case QueueFull():
            return OllamaError(503, BUSY, {"Retry-After": str(error.retry_after_s)})
        case ServerDraining():
            return OllamaError(503, str(error), {"Retry-After": str(DRAINING_RETRY_AFTER_S)})
        case PoisonousRequest():
            return OllamaError(422, str(error))
        case EngineDead():
            # Its text holds a signal and lines of the worker's log, which are the operator's, not the client's.
            return OllamaError(500, RUNNER_DIED)
        case StorageError():
            return OllamaError(507 if error.reason == "full" else 500, f"the server's storage is {error.reason}")
        case InvalidVocabulary():
            return OllamaError(500, str(error))  # names a key of the file
        case InvalidModelFile():
            return OllamaError(500, f"the model file is damaged: at byte {error.offset}: {error.fault}")
        case InvalidManifest():
            return OllamaError(500, f"the model's manifest is damaged: {without_folders(error.fault)}")
        case CorralError():
            return OllamaError(500, without_folders(str(error)))
    return OllamaError(500, "internal error; the server's log says more")


def too_long(error: ContextLengthExceeded) -> InvalidRequest:
    """A prompt beyond the context in Ollama's words, with our figures."""
    return InvalidRequest(f"{TOO_LONG}; {error.message}", param=error.param, code=error.code)
