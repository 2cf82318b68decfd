"""Frames between the front process and a worker: msgpack behind a 4-byte big-endian length. Pure.

The front sends Load, Submit, SubmitEmbed, Measure, MeasureEmbed, Render, Detokenize, Abort, Drain, Ping, ReleaseKV and
GetStats; the worker sends the rest.
Decoding builds only the types named here, so a frame can do no more than its fields say.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from corral import errors
from corral.config import EngineConfig
from corral.request import (
    Detokenized,
    DetokenizeRequest,
    EmbedRequest,
    EmbedResult,
    RenderedPrompt,
    Request,
    RequestOutput,
    RequestSize,
)
from corral.worker.info import ModelInfo, WorkerStats

MAX_FRAME_BYTES: Final = 256 << 20
LENGTH_BYTES: Final = 4

_length = struct.Struct(">I")


class Load(msgspec.Struct, tag=True, frozen=True):
    """The first frame: which model, and how."""

    path: str
    config: EngineConfig


class Submit(msgspec.Struct, tag=True, frozen=True):
    request: Request


class SubmitEmbed(msgspec.Struct, tag=True, frozen=True):
    request: EmbedRequest


class Measure(msgspec.Struct, tag=True, frozen=True):
    """What the request would come to; nothing is computed."""

    request: Request


class MeasureEmbed(msgspec.Struct, tag=True, frozen=True):
    request: EmbedRequest


class Render(msgspec.Struct, tag=True, frozen=True):
    """What the request's prompt would be; nothing is computed."""

    request: Request


class Detokenize(msgspec.Struct, tag=True, frozen=True):
    request: DetokenizeRequest


class Abort(msgspec.Struct, tag=True, frozen=True):
    """Idempotent; an unknown or finished id is no error."""

    request_id: str


class Drain(msgspec.Struct, tag=True, frozen=True):
    """Take nothing new; answer Drained when the last request has finished."""


class Ping(msgspec.Struct, tag=True, frozen=True):
    call_id: int


class ReleaseKV(msgspec.Struct, tag=True, frozen=True):
    """Give the memory of KV blocks that no request holds back; answered by Pong when that is done."""

    call_id: int


class GetStats(msgspec.Struct, tag=True, frozen=True):
    call_id: int


class Planned(msgspec.Struct, tag=True, frozen=True):
    """The memory plan as a table, before any weight is loaded."""

    text: str


class Progress(msgspec.Struct, tag=True, frozen=True):
    done_bytes: int
    total_bytes: int


class Ready(msgspec.Struct, tag=True, frozen=True):
    info: ModelInfo
    plan: str


class Outputs(msgspec.Struct, tag=True, frozen=True):
    """What the requests gained since the last frame; an output without deltas says: accepted."""

    outputs: list[RequestOutput]


class Embedded(msgspec.Struct, tag=True, frozen=True):
    result: EmbedResult


class Rendered(msgspec.Struct, tag=True, frozen=True):
    result: RenderedPrompt


class Measured(msgspec.Struct, tag=True, frozen=True):
    result: RequestSize


class Texts(msgspec.Struct, tag=True, frozen=True):
    """The answer to Detokenize."""

    result: Detokenized


class Failure(msgspec.Struct, tag=True, frozen=True, omit_defaults=True):
    """A typed error: of one request, or of the load when `request_id` is empty."""

    request_id: str
    kind: str
    message: str
    fields: dict[str, str | int | bool | None] = {}  # the error's attributes, such as param or retry_after_s


class Drained(msgspec.Struct, tag=True, frozen=True):
    pass


class Pong(msgspec.Struct, tag=True, frozen=True):
    call_id: int


class Stats(msgspec.Struct, tag=True, frozen=True):
    call_id: int
    stats: WorkerStats


_OfRequests = Submit | SubmitEmbed | Measure | MeasureEmbed | Render | Detokenize
ToWorker = _OfRequests | Load | Abort | Drain | Ping | ReleaseKV | GetStats
_OfResults = Outputs | Embedded | Measured | Rendered | Texts | Failure
FromWorker = _OfResults | Planned | Progress | Ready | Drained | Pong | Stats

_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(ToWorker)
_from_worker = msgspec.msgpack.Decoder(FromWorker)


class FrameError(ValueError):
    """Bytes that are no frame: the other side is broken or is not ours, so the connection ends."""


def encode_frame(frame: ToWorker | FromWorker) -> bytes:
    """Length and payload.

    Raises:
        FrameError: larger than MAX_FRAME_BYTES.
    """
    payload = _encoder.encode(frame)
    if len(payload) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {len(payload)} bytes; at most {MAX_FRAME_BYTES} are allowed")
    return _length.pack(len(payload)) + payload


def decode_length(prefix: bytes) -> int:
    """The payload's size in bytes.

    Raises:
        FrameError: larger than MAX_FRAME_BYTES, checked before anything is read.
    """
    num_bytes: int = _length.unpack(prefix)[0]
    if num_bytes > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {num_bytes} bytes; at most {MAX_FRAME_BYTES} are allowed")
    return num_bytes


def decode_to_worker(payload: bytes) -> ToWorker:
    """Raises FrameError for bytes that are no frame, and the nouns' own errors for fields out of range."""
    try:
        frame: ToWorker = _to_worker.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"not a frame for a worker: {error}") from error
    return frame


def decode_from_worker(payload: bytes) -> FromWorker:
    """Raises FrameError for bytes that are no frame."""
    try:
        frame: FromWorker = _from_worker.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"not a frame from a worker: {error}") from error
    return frame


def _error_kinds() -> dict[str, type[errors.CorralError]]:
    classes = (value for value in vars(errors).values() if isinstance(value, type))
    return {cls.__name__: cls for cls in classes if issubclass(cls, errors.CorralError)}


_KINDS = _error_kinds()


def failure_of(request_id: str, error: errors.CorralError) -> Failure:
    """The frame that carries `error` across."""
    return Failure(request_id, type(error).__name__, str(error), dict(vars(error)))


def error_of(failure: Failure) -> errors.CorralError:
    """The error that a frame carried: its class, its text and its attributes."""
    kind = _KINDS.get(failure.kind, errors.CorralError)
    # Past __init__, whose parameters each class chooses for itself.
    error: errors.CorralError = kind.__new__(kind)
    error.args = (failure.message,)
    for name, value in failure.fields.items():
        setattr(error, name, value)
    return error
