"""Every error Corral raises on purpose.

CorralError
├── InvalidModelFile        a model file is damaged or hostile: path, byte offset, fault
│   └── InvalidVocabulary   its tokenizer metadata is: key, fault
├── UnsupportedModel        a sound file of a family or tensor type that Corral does not know
├── ModelNotFound           no catalog entry, local file or running model of that name
├── InvalidModelName        what cannot be a model's name: part, rule
├── InvalidModelfile        a Modelfile that cannot be obeyed: line, fault
├── InvalidManifest         a manifest of the store or of a registry is damaged or hostile: where, fault
├── DownloadError           a source could not be reached or broke off
│   ├── DigestMismatch      what arrived is not what was promised
│   └── DiskFull            no room for what arrives; no other source can help
├── InsufficientMemory      the plan does not fit this machine
├── InvalidConfig           a setting that cannot be obeyed
├── InvalidRequest          the client's mistake: 400, names the field
│   ├── ContextLengthExceeded
│   └── LimitExceeded       more of something than is allowed: says how much was given and how much is
├── KeyRefused              an API key that is unknown, expired or revoked: 401
├── PermissionDenied        the key's role does not allow it: 403
├── StorageError            the server's database or folder of files: busy, full, damaged
├── QueueFull               the bounded queue is full: 503 with Retry-After
│   ├── TenantQueueFull     the key's own share of it is: 429 with Retry-After
│   └── WaitTooLong         by the measured rates the deadline comes before the turn: 503 with Retry-After
├── QuotaExceeded           the key has used what it may: 429
├── DeadlineExceeded        nobody waits for the request any more: 504
├── ServerDraining          the server finishes what it has and takes nothing new: 503
├── PoisonousRequest        the request has ended its worker twice, and is not tried again: 422
└── EngineDead              the engine or its worker has died; every waiter gets this
"""

from __future__ import annotations


class CorralError(Exception):
    """Base of all errors raised on purpose; its text is fit to show to a user."""


class InvalidModelFile(CorralError):
    """A model file that is damaged or hostile."""

    def __init__(self, path: object, offset: int, fault: str) -> None:
        super().__init__(f"{path}: at byte {offset}: {fault}")
        self.path = str(path)
        self.offset = offset
        self.fault = fault


class InvalidVocabulary(InvalidModelFile):
    """Tokenizer metadata that is damaged or hostile; `path` is the metadata key, as text/ never sees the file."""

    def __init__(self, key: str, fault: str) -> None:
        super().__init__(key, 0, fault)
        self.args = (f"{key}: {fault}",)


class UnsupportedModel(CorralError):
    """A sound model file of a family or tensor type that Corral does not know."""


class ModelNotFound(CorralError):
    """No catalog entry, local file or running model has the given name."""


class InvalidModelName(CorralError):
    """What cannot be a model's name; the text begins with "invalid model name"."""


class InvalidManifest(CorralError):
    """A manifest that is damaged or hostile; `origin` is its path or address."""

    def __init__(self, origin: object, fault: str) -> None:
        super().__init__(f"{origin}: {fault}")
        self.origin = str(origin)
        self.fault = fault


class InvalidModelfile(CorralError):
    """A Modelfile that cannot be obeyed; `line` counts from 1, 0 is the whole."""

    def __init__(self, fault: str, line: int) -> None:
        super().__init__(f"Modelfile: {f'(line {line}) ' if line else ''}{fault}")
        self.line = line


class DownloadError(CorralError):
    """A source could not be reached, refused, or broke off."""


class DigestMismatch(DownloadError):
    """What arrived is not what was promised."""


class DiskFull(DownloadError):
    """The disk that a file goes to has no room: no source can help."""


class InsufficientMemory(CorralError):
    """Weights and KV cache do not fit into the memory that is free."""


class InvalidConfig(CorralError):
    """A setting that cannot be obeyed."""


class InvalidRequest(CorralError):
    """The client's mistake; `param` names the field, `code` is machine-readable."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class ContextLengthExceeded(InvalidRequest):
    """The prompt, or prompt plus max_tokens, is longer than the context."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param, code="context_length_exceeded")


class KeyRefused(CorralError):
    """An API key that opens nothing: unknown, expired or revoked."""


class PermissionDenied(CorralError):
    """The key's role does not allow it."""


class LimitExceeded(InvalidRequest):
    """More of something than a limit allows; the text tells both figures.

    Args:
        what: the field, as the client knows it.
        unit: what is counted.
        least: fewest that are allowed.
        param: where it is not `what`.
    """

    def __init__(
        self, what: str, given: int, allowed: int, unit: str = "entries", *, least: int = 0, param: str | None = None
    ) -> None:
        bounds = f"from {least} to {allowed}" if least else f"at most {allowed}"
        message = f"{what} has {given} {unit}; {bounds} are allowed"
        super().__init__(message, param=param or what, code="limit_exceeded")


class StorageError(CorralError):
    """The server's database or a file of its own cannot be used; `reason` is "busy", "full", "damaged" or "failed"."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class QueueFull(CorralError):
    """The bounded queue is full; the client may try again after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TenantQueueFull(QueueFull):
    """The key has as many requests in the queue as one may."""


class WaitTooLong(QueueFull):
    """The request would not start before its deadline."""


class QuotaExceeded(CorralError):
    """The key has used what it may of "requests" or "tokens"; `is_for_today` says that the day's quota is used up.

    The client may try again after `retry_after_s` seconds; None is never, as what it asks is more than the whole quota.
    """

    def __init__(self, message: str, kind: str, retry_after_s: int | None, *, is_for_today: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s
        self.is_for_today = is_for_today


class DeadlineExceeded(CorralError):
    """The time that the client gave its request, or the server gives to all, is over."""


class ServerDraining(CorralError):
    """The server finishes the streams in flight and takes nothing new."""


class PoisonousRequest(CorralError):
    """The request has ended its model's worker twice, or the same has a short while ago; it is not tried again."""


class EngineDead(CorralError):
    """The engine or its worker process has died; every waiter gets this."""
