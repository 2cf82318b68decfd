"""Starting and stopping: a first signal lets the streams in flight finish, a second one does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from corral.errors import ServerDraining
from corral.protocol.openai.errors import reply_to
from corral.server.replies import send_reply

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Probes, which are answered without a key and at all times; see routes/probes.py.
HEALTH_PATHS = ("/health", "/healthz", "/ping")
READY_PATHS = ("/ready", "/readyz")
LIVE_PATH = "/livez"
PROBE_PATHS = frozenset({*HEALTH_PATHS, *READY_PATHS, LIVE_PATH})


class Lifecycle:
    """Counts what is in flight, and knows whether the server still takes more.

    A server that is to stop says so to probes first. It takes requests for a while after that, since whoever sends them
    here has yet to ask; then it refuses them and ends what is in flight.

    Args:
        is_loading: the models that are to be there first are not there yet.
    """

    def __init__(self, *, is_loading: bool = False) -> None:
        self.is_loading = is_loading
        self.num_in_flight = 0
        self.stopping = asyncio.Event()  # the first signal
        self.forced = asyncio.Event()  # the second
        self.is_hurried = False  # nobody sends requests here but whoever stops us
        self.is_refusing = False
        self.on_refuse: list[Callable[[], None]] = []  # called when the time of taking requests is over
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def is_draining(self) -> bool:
        return self.stopping.is_set()

    def stop(self, *, is_hurried: bool = False) -> None:
        """A signal has come.

        Args:
            is_hurried: from a terminal.
        """
        if self.stopping.is_set():
            self.forced.set()
        self.is_hurried = self.is_hurried or is_hurried
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

    async def take_leave(self, delay_s: float) -> None:
        """Waits while requests are still taken, and refuses them from then on; a second signal ends the wait."""
        if delay_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self.forced.wait()
        self.is_refusing = True
        for refuse in self.on_refuse:
            refuse()

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
    """Middleware: while the server ends what is in flight, refuses what would start new work."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBE_PATHS:
            await self._app(scope, receive, send)
        elif self._lifecycle.is_refusing and scope["method"] not in ("GET", "HEAD"):
            message = "the server finishes the answers in flight and then stops; it takes no new requests"
            await send_reply(scope, send, reply_to(ServerDraining(message)))
        else:
            with self._lifecycle.request():
                await self._app(scope, receive, send)


class Farewell:
    """Middleware: answers of a server that is to stop end their connections, so that the next request goes elsewhere.

    Connections without a request stay open as long as requests are taken: a client may be about to use one.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_farewell(message: Message) -> None:
            if message["type"] == "http.response.start" and self._lifecycle.is_draining:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_farewell if scope["type"] == "http" else send)
