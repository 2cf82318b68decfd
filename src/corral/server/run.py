"""`corral serve`: from model files to a running server, and its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uvloop import new_event_loop

from corral.config import EngineConfig, ServerConfig
from corral.server.lifecycle import Lifecycle
from corral.server.listen import bind, url_of
from corral.server.logs.output import log_to_stderr
from corral.server.model_manager import ModelManager
from corral.server.model_names import ModelNames
from corral.server.origins import origin_pattern
from corral.store.local_model import LocalModel
from corral.worker.client import OnProgress

if TYPE_CHECKING:
    from corral.server.http_server import QuietServer

logger = logging.getLogger("corral.server")

EXIT_DRAIN_CUT = 1
EXIT_INTERRUPTED = 130  # a signal came before the model was loaded


@dataclass(frozen=True, slots=True)
class Serving:
    """Which models are served.

    Args:
        names: everything that may be asked for.
        pinned: loaded before the first request, and kept.
        preloaded: loaded before the first request, and then like any other.
    """

    names: ModelNames
    pinned: tuple[LocalModel, ...] = ()
    preloaded: tuple[LocalModel, ...] = ()


def serve(serving: Serving, engine: EngineConfig, server: ServerConfig) -> int:
    """Serves models until a signal; returns the process's exit code.

    SIGTERM or SIGINT lets the answers in flight finish; a second one ends them.

    Raises:
        CorralError: nothing could be served: a host or port that cannot be had, a host that needs a key, or whatever
            refused a model that was to be loaded first.
    """
    origin_pattern(server.origins)  # what is no origin is told before a model is loaded
    sockets = bind(server)
    try:
        with log_to_stderr(server), asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_serve(serving, engine, server, sockets))
    finally:
        for sock in sockets:
            sock.close()


async def _serve(serving: Serving, engine: EngineConfig, config: ServerConfig, sockets: list[socket.socket]) -> int:
    lifecycle = Lifecycle()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lifecycle.stop)
    manager = ModelManager(serving.names, engine, config, say=_say)
    try:
        # What HTTP needs takes a while to import; the workers load their models meanwhile.
        make_server = asyncio.ensure_future(asyncio.to_thread(_import_http, config.database_url))
        if not await _load(manager, serving, lifecycle):
            return EXIT_INTERRUPTED
        server = (await make_server)(manager, config, lifecycle)
        running = asyncio.ensure_future(server.serve(sockets=sockets))
        await _first_of(running, server.is_listening.wait())
        urls = ", ".join(url_of(sock) for sock in sockets)
        apis = "OpenAI's API under /v1, Ollama's under /api"
        _say(f"Corral serves {await describe(serving)} at {urls} ({apis}; Ctrl-C stops it)")
        return await _run_until_stopped(server, running, lifecycle, config)
    finally:
        await manager.close()


async def describe(serving: Serving) -> str:
    """What is served, in the words of the line that says the server is ready."""
    if serving.pinned:
        return ", ".join(local.name for local in serving.pinned)
    num_models = len(await asyncio.to_thread(serving.names.all))
    if num_models == 0:
        return "no models yet (`corral pull smollm2` gets one)"
    return f"{num_models} models on demand" if num_models != 1 else "1 model on demand"


def _import_http(database_url: str | None) -> Callable[[ModelManager, ServerConfig, Lifecycle], QuietServer]:
    from corral.server.app import build_app
    from corral.server.connections import allow_open_files
    from corral.server.database import Database
    from corral.server.http_server import make_server

    Database(database_url).warm_up()  # keys are read before the first request is

    def make(manager: ModelManager, config: ServerConfig, lifecycle: Lifecycle) -> QuietServer:
        allow_open_files(config)
        return make_server(build_app(manager, config, lifecycle), config)

    return make


async def _load(manager: ModelManager, serving: Serving, lifecycle: Lifecycle) -> bool:
    """Loads what is to be there first, side by side; False when a signal came before that was done."""
    with _progress() as progress_of:
        loading = asyncio.gather(
            *(
                manager.load(local, pin=is_pinned, on_plan=_say, on_progress=progress_of(local.name))
                for models, is_pinned in ((serving.pinned, True), (serving.preloaded, False))
                for local in models
            )
        )
        if await _first_of(loading, lifecycle.stopping.wait()):
            loading.result()
            return True
        loading.cancel()
        await asyncio.wait({loading})
        return False


async def _first_of(work: asyncio.Future[Any], event: Coroutine[Any, Any, Any]) -> bool:
    """Waits for either; whether `work` has ended."""
    waiting = asyncio.ensure_future(event)
    await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return work.done()


async def _run_until_stopped(
    server: QuietServer, serving: asyncio.Future[None], lifecycle: Lifecycle, config: ServerConfig
) -> int:
    if await _first_of(serving, lifecycle.stopping.wait()):
        serving.result()
        return EXIT_DRAIN_CUT
    if lifecycle.num_in_flight:
        answers = "1 answer" if lifecycle.num_in_flight == 1 else f"{lifecycle.num_in_flight} answers"
        _say(f"Corral finishes {answers} and stops; another Ctrl-C stops it at once")
    is_drained = await lifecycle.drain(config.drain_timeout_s)
    server.should_exit = True
    server.force_exit = not is_drained
    await serving
    return 0 if is_drained else EXIT_DRAIN_CUT


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], OnProgress | None]]:
    """Bars on a terminal, one a model; nothing where nobody watches."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("loading {task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def progress_of(name: str) -> OnProgress:
            task = progress.add_task(name, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield progress_of


def _say(text: str) -> None:
    logger.info("%s", text)
