"""Answers that take a while: what is done for them stops when the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from corral.protocol.sse import KEEP_ALIVE

KEEP_ALIVE_S = 15.0

_T = TypeVar("_T")


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of `work`; cancels it as soon as the client has gone.

    Raises:
        ClientDisconnect: the client has gone.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        await _cancel(working, watching)


class EventStream(Response):
    """Sends server-sent events as they come.

    The generator is closed when the client goes away, at once and not at the next event. While no event comes, comment
    lines keep proxies from cutting the connection.

    Args:
        held: what the events need; closed after them, whether or not one was sent.
        keep_alive_s: None sends no comment lines.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        held: AsyncExitStack | None = None,
        keep_alive_s: float | None = KEEP_ALIVE_S,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._events = events
        self._held = held or AsyncExitStack()
        self._keep_alive_s = keep_alive_s
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            self._sent_at = asyncio.get_running_loop().time()
            sending = asyncio.ensure_future(self._send_events(send))
            watching = asyncio.ensure_future(_wait_for_disconnect(receive))
            period_s = self._keep_alive_s
            ticking = [] if period_s is None else [asyncio.ensure_future(self._keep_alive(send, period_s))]
            try:
                await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
            finally:
                await _cancel(sending, watching, *ticking)
                await self._events.aclose()

    async def _send_events(self, send: Send) -> None:
        async for event in self._events:
            if event:
                await send({"type": "http.response.body", "body": event, "more_body": True})
                self._sent_at = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keep_alive(self, send: Send, period_s: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            quiet_s = loop.time() - self._sent_at
            if quiet_s >= period_s:
                await send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})
                self._sent_at = loop.time()
                quiet_s = 0.0
            await asyncio.sleep(period_s - quiet_s)


class LineStream(EventStream):
    """Sends lines of JSON as they come. Each has to be an object for the clients, so none can keep the line open."""

    media_type = "application/x-ndjson"

    def __init__(
        self,
        lines: AsyncGenerator[bytes, None],
        *,
        held: AsyncExitStack | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(lines, held=held, keep_alive_s=None, headers=headers)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancels what still runs and waits until it has let go; its errors are nobody's any more."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in tasks:
        if not task.cancelled():
            task.exception()
