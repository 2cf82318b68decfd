"""An ASGI app on a real socket, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future

from starlette.types import ASGIApp

from corral.config import ServerConfig
from corral.server.http_server import make_server
from corral.server.listen import bind, url_of

Close = Callable[[], Awaitable[None]]


async def _nothing() -> None:
    pass


@contextlib.contextmanager
def live_app(make_app: Callable[[], ASGIApp], close: Close = _nothing) -> Iterator[str]:
    """The URL of a running server; `make_app` and, at the end, `close` are called on its loop."""
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        stop = asyncio.Event()
        try:
            config = ServerConfig(port=0)
            sockets = bind(config)
            server = make_server(make_app(), config)
            serving = asyncio.ensure_future(server.serve(sockets=sockets))
            await server.is_listening.wait()
        except BaseException as fault:
            started.set_exception(fault)
            raise
        started.set_result((url_of(sockets[0]), asyncio.get_running_loop(), stop))
        await stop.wait()
        server.should_exit = True
        await serving
        await close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    url, loop, stop = started.result(60)
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
