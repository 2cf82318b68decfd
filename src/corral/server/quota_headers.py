"""Tells clients what their key has left, in OpenAI's words and on Anthropic's routes in Anthropic's."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral.server.caller import caller_of
from corral.server.quotas import QuotaBook, Standing
from corral.server.replies import is_anthropic

NAMES = tuple(
    name
    for kind in ("requests", "tokens")
    for what in ("limit", "remaining", "reset")
    for name in (f"x-ratelimit-{what}-{kind}", f"anthropic-ratelimit-{kind}-{what}")
)


class QuotaHeaders:
    """Middleware within KeyAuth: headers on all answers to a key that has quotas."""

    def __init__(self, app: ASGIApp, book: QuotaBook) -> None:
        self._app = app
        self._book = book

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_standing(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = self._headers(scope)
                message["headers"] = [*message["headers"], *((n.encode(), v.encode()) for n, v in told.items())]
            await send(message)

        await self._app(scope, receive, send_with_standing if scope["type"] == "http" else send)

    def _headers(self, scope: Scope) -> dict[str, str]:
        encode = _anthropics if is_anthropic(scope) else _openais
        headers: dict[str, str] = {}
        for kind, standing in zip(("requests", "tokens"), self._book.standing(caller_of(scope)), strict=True):
            if standing is not None:
                headers |= encode(kind, standing)
        return headers


def _openais(kind: str, standing: Standing) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": str(standing.limit),
        f"x-ratelimit-remaining-{kind}": str(standing.remaining),
        f"x-ratelimit-reset-{kind}": duration(standing.reset_s),
    }


def _anthropics(kind: str, standing: Standing) -> dict[str, str]:
    reset = datetime.fromtimestamp(time.time() + standing.reset_s, UTC)
    return {
        f"anthropic-ratelimit-{kind}-limit": str(standing.limit),
        f"anthropic-ratelimit-{kind}-remaining": str(standing.remaining),
        f"anthropic-ratelimit-{kind}-reset": reset.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def duration(seconds: float) -> str:
    """As OpenAI writes it: 17ms, 8.64s, 6m0s, 23h59m1s."""
    if 0 < seconds < 1:
        return f"{max(1, round(seconds * 1000))}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
