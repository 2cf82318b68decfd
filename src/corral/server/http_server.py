"""uvicorn as Corral runs it: its own protocol class, no signal handlers, no log of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp

from corral.config import ServerConfig
from corral.limits import KEEP_ALIVE_TIMEOUT_S
from corral.server.http_protocol import limited_protocol

SHUTDOWN_TIMEOUT_S = 2


class QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers: it would close its listeners first, and new requests deserve an answer."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def make_server(app: ASGIApp, config: ServerConfig) -> QuietServer:
    """uvicorn, set up for `app`; run it with serve(sockets=...)."""
    return QuietServer(
        uvicorn.Config(
            app,
            http=limited_protocol(config),  # type: ignore[arg-type]
            ws="none",
            lifespan="auto",
            log_config=None,
            log_level="error",  # below it are only the faults of clients
            access_log=False,
            server_header=False,
            headers=[("server", "corral")],
            proxy_headers=False,
            timeout_keep_alive=int(KEEP_ALIVE_TIMEOUT_S),
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        )
    )
