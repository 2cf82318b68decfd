"""Starting and stopping: a first signal lets the streams in flight finish, a second one does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

from corral.errors import ServerDraining
from corral.protocol.openai.errors import reply_to
from corral.server.replies import send_reply

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Lifecycle:
    """Counts what is in flight and knows whether the server still takes more."""

    def __init__(self) -> None:
        self.num_in_flight = 0
        self.stopping = asyncio.Event()  # the first signal
        self.forced = asyncio.Event()  # the second
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def is_draining(self) -> bool:
        return self.stopping.is_set()

    def stop(self) -> None:
        """A signal has come."""
        if self.stopping.is_set():
            self.forced.set()
        self.stopping.set()

    @contextlib.contextmanager
    def request(self) -> Generator[None, None, None]:
        """A request in flight, from its first byte to the last one of its answer."""
        self.num_in_flight += 1
        self._is_idle.clear()
        try:
            yield
        finally:
            self.num_in_flight -= 1
            if self.num_in_flight == 0:
                self._is_idle.set()

    async def drain(self, timeout_s: float) -> bool:
        """Waits until nothing is in flight; False when time ran out, or a second signal came, before that."""
        idle = asyncio.ensure_future(self._is_idle.wait())
        forced = asyncio.ensure_future(self.forced.wait())
        try:
            await asyncio.wait({idle, forced}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            return idle.done()
        finally:
            idle.cancel()
            forced.cancel()


class DrainGate:
    """Middleware: while the server drains, refuses what would start new work."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._lifecycle.is_draining and scope["method"] not in ("GET", "HEAD"):
            message = "the server finishes the answers in flight and then stops; it takes no new requests"
            await send_reply(scope, send, reply_to(ServerDraining(message)))
        else:
            with self._lifecycle.request():
                await self._app(scope, receive, send)
