"""An ASGI app on a real socket, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

from starlette.types import ASGIApp

from corral.config import ServerConfig
from corral.server.http_server import make_server
from corral.server.listen import bind, url_of


@contextlib.contextmanager
def live_app(make_app: Callable[[], ASGIApp]) -> Iterator[str]:
    """The URL of a running server; `make_app` is called on its loop."""
    started = threading.Event()
    found: dict[str, object] = {}

    async def main() -> None:
        sockets = bind(ServerConfig(port=0))
        server = make_server(make_app())
        serving = asyncio.ensure_future(server.serve(sockets=sockets))
        await server.is_listening.wait()
        found.update(url=url_of(sockets[0]), loop=asyncio.get_running_loop(), stop=asyncio.Event())
        started.set()
        stop = found["stop"]
        assert isinstance(stop, asyncio.Event)
        await stop.wait()
        server.should_exit = True
        await serving

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert started.wait(60)
    loop, stop = found["loop"], found["stop"]
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(stop, asyncio.Event)
    try:
        yield str(found["url"])
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
