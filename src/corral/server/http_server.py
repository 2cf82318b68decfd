"""uvicorn as Corral runs it: its own protocol class, no signal handlers, no log of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp

from corral.config import ServerConfig
from corral.limits import KEEP_ALIVE_TIMEOUT_S
from corral.server.connections import Connections, HttpLimits, allow_open_files
from corral.server.dead_peers import find_dead_peers
from corral.server.http_protocol import limited_protocol

SHUTDOWN_TIMEOUT_S = 2


class QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers: it would close its listeners first, and new requests deserve an answer."""

    def __init__(self, config: uvicorn.Config, connections: Connections, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self.is_listening = asyncio.Event()
        self._connections = connections
        self._tls = tls
        self._sockets: list[socket.socket] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._sockets = sockets or []
        await super().startup([])  # all but listening
        self.servers = await self._listen()
        self.is_listening.set()

    def num_connections(self) -> int:
        """Open ones."""
        return self._connections.num_open

    def reconfigure(self, config: ServerConfig) -> None:
        """Gives new connections the limits of these settings."""
        allow_open_files(config)
        self._connections.limits = HttpLimits.of(config)
        for sock in self._sockets:
            find_dead_peers(sock, config.write_timeout_s)

    async def renew(self, tls: ssl.SSLContext) -> None:
        """Makes new connections with these certificates; those that are open go on.

        The context in use is replaced, not changed: an authority that vouches no more is gone with it, and so are
        sessions that could be resumed. What waits to be accepted waits in the socket, which stays.
        """
        if self.should_exit or not self.is_listening.is_set():
            return
        self._tls = tls
        former, self.servers = self.servers, await self._listen()
        for server in former:
            server.close()

    async def _listen(self) -> list[asyncio.base_events.Server]:
        loop = asyncio.get_running_loop()

        def make_protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )

        # A client that does not shake hands is as slow as one that sends no head.
        timeout_s = None if self._tls is None else self._connections.limits.head_timeout_s
        return [
            await loop.create_server(
                make_protocol,
                sock=sock.dup(),
                ssl=self._tls,
                ssl_handshake_timeout=timeout_s,
                backlog=self.config.backlog,
            )
            for sock in self._sockets
        ]

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def make_server(app: ASGIApp, config: ServerConfig, tls: ssl.SSLContext | None = None) -> QuietServer:
    """uvicorn, set up for `app`; run it with serve(sockets=...)."""
    connections = Connections(HttpLimits.of(config))
    return QuietServer(
        uvicorn.Config(
            app,
            http=limited_protocol(connections),  # type: ignore[arg-type]
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
        ),
        connections,
        tls,
    )
