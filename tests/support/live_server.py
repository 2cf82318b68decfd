"""A real server on a real socket, on an event loop in a thread of its own, over a real worker process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from corral.config import EngineConfig, ServerConfig
from corral.server.app import build_app
from corral.server.http_server import make_server
from corral.server.lifecycle import Lifecycle
from corral.server.listen import bind, url_of
from corral.server.model_manager import ModelManager
from corral.server.model_names import ModelNames, NamedModels
from corral.server.tls import read_certificates
from corral.store.local_model import LocalModel
from corral.worker.info import WorkerStats
from tests.support import scripted_worker
from tests.support.scripted_models import ScriptedProbe, read_scripted_needs

T = TypeVar("T")

SCRIPTED = LocalModel("scripted", Path("scripted.gguf"))


class LiveServer:
    """Use `live_server`."""

    def __init__(self, names: ModelNames, engine: EngineConfig, config: ServerConfig, **of_manager: Any) -> None:
        self.names = names
        self.engine = engine
        self.config = config
        self._of_manager = of_manager
        self._started = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.sockets[0].getsockname()[:2]
        return host, port

    def run(self, make: Callable[[], Awaitable[T]]) -> T:
        """Runs a coroutine on the server's loop."""

        async def call() -> T:
            return await make()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(60)

    async def first_stats(self) -> WorkerStats:
        """Of the first model; on the server's loop."""
        async with self.manager.lease(self.names.all()[0]) as model:
            return await model.stats()

    def stats(self) -> WorkerStats:
        return self.run(self.first_stats)

    def worker_pid(self) -> int:
        """Of the first model."""

        async def ask() -> int:
            async with self.manager.lease(self.names.all()[0]) as model:
                return model.pid

        return self.run(ask)

    def wait_until(self, is_reached: Callable[[WorkerStats], bool], timeout_s: float = 60.0) -> WorkerStats:
        """Asks the worker until its state is the wanted one; each question is a round trip, so none is a busy loop."""

        async def ask() -> WorkerStats:
            async with asyncio.timeout(timeout_s):
                while not is_reached(stats := await self.first_stats()):
                    continue
                return stats

        return asyncio.run_coroutine_threadsafe(ask(), self.loop).result(timeout_s + 10)

    def start(self) -> None:
        self._thread.start()
        self._started.wait(120)
        if self._fault is not None:
            raise self._fault

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(60)

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self.lifecycle = Lifecycle()
        self.manager = ModelManager(self.names, self.engine, self.config, **self._of_manager)
        try:
            self.sockets = bind(self.config)
            for local in self.names.all():
                await self.manager.load(local, pin=True)
            self.app = build_app(self.manager, self.config, self.lifecycle)
            certificates = read_certificates(self.config)
            server = self.server = make_server(self.app, self.config, certificates.context if certificates else None)
            serving = asyncio.ensure_future(server.serve(sockets=self.sockets))
            await server.is_listening.wait()
            self.url = url_of(self.sockets[0], "https" if certificates else "http")
        except BaseException as fault:
            self._fault = fault
            self._started.set()
            raise
        self._started.set()
        await self._stopping.wait()
        server.should_exit = True
        await serving
        await self.manager.close()


@contextlib.contextmanager
def live_server(
    *models: LocalModel,
    aliases: dict[str, LocalModel] | None = None,
    engine: EngineConfig | None = None,
    command: Sequence[str] = scripted_worker.COMMAND,
    **config: Any,
) -> Iterator[LiveServer]:
    """A running server that has `models` loaded and pinned, by default a scripted one that is called "echo" too.

    Args:
        config: fields of ServerConfig.
    """
    if not models:
        models, aliases = (SCRIPTED,), {"echo": SCRIPTED}
    of_manager: dict[str, Any] = {"command": command}
    if command == scripted_worker.COMMAND:
        of_manager |= {"read_needs": read_scripted_needs, "probe": ScriptedProbe()}
    names = NamedModels(models, aliases)
    server = LiveServer(names, engine or EngineConfig(), ServerConfig(**{"port": 0, **config}), **of_manager)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def chat_body(content: Any = "hello there", **fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": content}], **fields}


def raw_request(
    server: LiveServer, body: bytes | str, path: str = "/v1/chat/completions", headers: dict[str, str] | None = None
) -> bytes:
    """The bytes of a POST, for tests that speak through a bare socket."""
    body = body.encode() if isinstance(body, str) else body
    fields = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def connect(server: LiveServer) -> socket.socket:
    return socket.create_connection(server.address, timeout=30)


def read_to_end(sock: socket.socket) -> bytes:
    """All that the server sends until it closes."""
    chunks = []
    with contextlib.suppress(ConnectionResetError):
        while chunk := sock.recv(1 << 16):
            chunks.append(chunk)
    return b"".join(chunks)


def read_response(sock: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of a response with a Content-Length."""
    file = sock.makefile("rb")
    status = int(file.readline().split()[1])
    length = 0
    while (line := file.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, json.loads(file.read(length))


def error_of(response: httpx.Response) -> dict[str, Any]:
    """OpenAI's error object, with all four of its fields."""
    payload = response.json()
    assert set(payload) == {"error"}
    assert set(payload["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = payload["error"]
    return error
