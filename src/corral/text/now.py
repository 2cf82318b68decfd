"""What time it is to templates: now, or what the request says, so that one rendered again is the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import datetime

_AT: ContextVar[float | None] = ContextVar("at", default=None)


def now() -> datetime:
    """With the machine's time zone."""
    at = _AT.get()
    return (datetime.now() if at is None else datetime.fromtimestamp(at)).astimezone()


@contextlib.contextmanager
def time_is(at: float | None) -> Iterator[None]:
    """Within it is `at`, seconds since 1970; None is the clock's time."""
    token = _AT.set(at)
    try:
        yield
    finally:
        _AT.reset(token)
