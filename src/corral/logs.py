"""A line of the log as plain values: in the process that says it, on its way out of a worker, and where it is written.

While a request is under way nothing is said that may quote it: an error's own text can hold what the client sent, so
of one that nobody raised on purpose only its type and its stack are told.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any

import msgspec

from corral.errors import CorralError, InvalidRequest

MAX_FRAMES = 40  # of an error's stack
MAX_CAUSES = 5
ACCESS_LOGGER = "corral.access"
REQUESTS_LOGGER = "corral.requests"  # tells prompts, so it is silent unless the user wants it
WIRE_MARK = b"\x1e"  # begins a worker's line that is a record (RFC 7464); what else it says is passed on as it stands

SILENT = logging.CRITICAL + 1
logging.getLogger(REQUESTS_LOGGER).setLevel(SILENT)

_request_id: ContextVar[str] = ContextVar("corral.request_id", default="")


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line.

    Args:
        time: Unix seconds.
        level: as Python's logging has it, in lower case.
        request_id: of the request that was under way; "" for none.
        exception: the stack of the error that is told of; "" for none.
        fields: what else is known, by name.
    """

    time: float
    level: str
    logger: str
    message: str
    request_id: str = ""
    exception: str = ""
    fields: Mapping[str, Any] = {}


@contextmanager
def about(request_id: str) -> Iterator[None]:
    """What is logged within the block, and in tasks and threads that are started there, is about this request."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def about_no_request() -> Context:
    """For what a request happens to start, and that outlives it."""
    context = copy_context()
    context.run(_request_id.set, "")
    return context


def shows_prompts() -> bool:
    """Whether the log may hold what clients send."""
    return logging.getLogger(REQUESTS_LOGGER).isEnabledFor(logging.INFO)


def line_of(record: logging.LogRecord) -> LogLine:
    """What a record says. `extra` may give it a `request_id`, `fields`, or, for a worker's, the whole `line`."""
    if isinstance(line := getattr(record, "line", None), LogLine):
        return line
    request_id = getattr(record, "request_id", "") or _request_id.get()
    error = record.exc_info[1] if record.exc_info else None
    return LogLine(
        record.created,
        record.levelname.lower(),
        record.name,
        record.getMessage(),
        request_id,
        "" if error is None else stack_of(error, with_text=shows_prompts() or not request_id),
        getattr(record, "fields", {}),
    )


def stack_of(error: BaseException, *, with_text: bool) -> str:
    """Where an error comes from, and what led to it, the first cause first.

    Args:
        with_text: tell its own text whatever it is; otherwise only where it cannot quote a client.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain and len(chain) < MAX_CAUSES:
        chain.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\nwhich led to\n".join(_one(each, with_text) for each in reversed(chain))


def _one(error: BaseException, with_text: bool) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__, limit=-MAX_FRAMES))
    stack = f"Traceback (most recent call last):\n{frames}" if frames else ""
    is_ours = isinstance(error, OSError) or (isinstance(error, CorralError) and not isinstance(error, InvalidRequest))
    text = f": {error}" if with_text or is_ours else ""
    parts = [f"{stack}{type(error).__qualname__}{text}"]
    if isinstance(error, BaseExceptionGroup):
        parts += [stack_of(each, with_text=with_text) for each in error.exceptions[:MAX_CAUSES]]
    return "\n".join(parts)


class WireFormatter(logging.Formatter):
    """A worker's records, one a line, for the process that reads its stderr."""

    def format(self, record: logging.LogRecord) -> str:
        return (WIRE_MARK + msgspec.json.encode(line_of(record), enc_hook=str)).decode()


def record_of_wire(line: bytes) -> logging.LogRecord | None:
    """The record of a worker's line; None for one that it did not write through `logging`."""
    if not line.startswith(WIRE_MARK):
        return None
    try:
        told = msgspec.json.decode(line[len(WIRE_MARK) :], type=LogLine)
    except msgspec.MsgspecError:
        return None
    level = logging.getLevelNamesMapping().get(told.level.upper(), logging.WARNING)
    record = logging.LogRecord(told.logger, level, "", 0, told.message, None, None)
    record.line = told
    return record
