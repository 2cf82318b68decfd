"""How long a request may take: what its client says, what the server allows, and waits that end in time."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from corral.errors import DeadlineExceeded, InvalidRequest
from corral.protocol.openai.errors import reply_to
from corral.server.exchange import exchange_of
from corral.server.replies import send_reply

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from corral.server.live_settings import LiveSettings

TIMEOUT_HEADER = "X-Request-Timeout"

_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)?")
_SECONDS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_timeout(text: str) -> float:
    """Seconds of "30", "500ms", "2s", "1.5m" or "1h".

    Raises:
        InvalidRequest: anything else, and 0.
    """
    match = _TIME.fullmatch(text.strip(" \t"))
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not seconds > 0:
        raise InvalidRequest(
            f"{TIMEOUT_HEADER} is {text[:40]!r}; it must be a number of seconds above 0, or one with ms, s, m or h",
            param=TIMEOUT_HEADER,
            code="invalid_value",
        )
    return seconds


@asynccontextmanager
async def before(deadline: float | None) -> AsyncIterator[None]:
    """Ends the block's waits at the deadline, in monotonic seconds; None is never.

    Raises:
        DeadlineExceeded: it came first.
    """
    if deadline is None:
        yield
        return
    scope = asyncio.timeout(max(0.0, deadline - time.monotonic()))
    try:
        async with scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise DeadlineExceeded("the time that the request was given is over") from None


class Deadlines:
    """Middleware: gives an exchange the deadline that its client asks for, or the server's own if that is sooner."""

    def __init__(self, app: ASGIApp, settings: LiveSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            exchange = exchange_of(scope)
            try:
                seconds = min([self._settings.config.request_timeout_s, *map(parse_timeout, _given(scope))])
            except InvalidRequest as error:
                await send_reply(scope, send, reply_to(error))
                return
            if math.isfinite(seconds):
                exchange.deadline = exchange.started + seconds
        await self._app(scope, receive, send)


def _given(scope: Scope) -> list[str]:
    name = TIMEOUT_HEADER.lower().encode("ascii")
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
