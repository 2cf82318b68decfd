"""`corral serve`: from model files to a running server, and its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uvloop import new_event_loop

from corral.config import EngineConfig, ServerConfig
from corral.server.lifecycle import Lifecycle
from corral.server.listen import bind, drain_delay_s, url_of
from corral.server.model_manager import ModelManager
from corral.server.model_names import ModelNames
from corral.server.origins import origin_pattern
from corral.store.local_model import LocalModel
from corral.worker.client import OnProgress

if TYPE_CHECKING:
    from corral.server.http_server import QuietServer

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

    SIGTERM or SIGINT lets the answers in flight finish; a second one ends them. After SIGTERM probes say 503 at once,
    and requests are taken for a while longer, until those who send them have noticed.

    Raises:
        CorralError: nothing could be served: a host or port that cannot be had, a host that needs a key, or whatever
            refused a model that was to be loaded first.
    """
    origin_pattern(server.origins)  # what is no origin is told before a model is loaded
    sockets = bind(server)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_serve(serving, engine, server, sockets))
    finally:
        for sock in sockets:
            sock.close()


async def _serve(serving: Serving, engine: EngineConfig, config: ServerConfig, sockets: list[socket.socket]) -> int:
    lifecycle = Lifecycle(is_loading=True)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lifecycle.stop)
    loop.add_signal_handler(signal.SIGINT, lambda: lifecycle.stop(is_hurried=True))
    manager = ModelManager(serving.names, engine, config, say=_say)
    # What HTTP needs takes a while to import; the workers load their models meanwhile.
    loading = asyncio.ensure_future(_load(manager, serving))
    try:
        server = (await asyncio.to_thread(_import_http))(manager, config, lifecycle)
        async with _listening(server, sockets) as running:
            # From here on probes are told that models load, and requests wait for them.
            if not await _is_loaded(loading, manager, lifecycle):
                return EXIT_INTERRUPTED
            lifecycle.is_loading = False
            urls = ", ".join(url_of(sock) for sock in sockets)
            apis = "OpenAI's API under /v1, Ollama's under /api"
            _say(f"Corral serves {await describe(serving)} at {urls} ({apis}; Ctrl-C stops it)")
            delay_s = drain_delay_s(config, sockets)
            is_drained = await _run_until_drained(running, lifecycle, delay_s, config.drain_timeout_s)
            server.force_exit = not is_drained
            return 0 if is_drained else EXIT_DRAIN_CUT
    finally:
        loading.cancel()
        await manager.close()


@contextlib.asynccontextmanager
async def _listening(server: QuietServer, sockets: list[socket.socket]) -> AsyncIterator[asyncio.Future[None]]:
    """Gives the task that serves, as soon as it listens, and ends it."""
    running = asyncio.ensure_future(server.serve(sockets=sockets))
    await _first_of(running, server.is_listening.wait())
    try:
        yield running
    finally:
        server.should_exit = True
        await asyncio.wait({running})


async def _is_loaded(loading: asyncio.Future[None], manager: ModelManager, lifecycle: Lifecycle) -> bool:
    """Waits for the models that are to be there first; False when a signal came before. Raises what refused one."""
    try:
        if await _first_of(loading, lifecycle.stopping.wait()):
            loading.result()
            return True
    except BaseException:
        await manager.close()
        raise
    await manager.close()  # whoever waits for a model is told so while there is a connection
    return False


async def describe(serving: Serving) -> str:
    """What is served, in the words of the line that says the server is ready."""
    if serving.pinned:
        return ", ".join(local.name for local in serving.pinned)
    num_models = len(await asyncio.to_thread(serving.names.all))
    if num_models == 0:
        return "no models yet (`corral pull smollm2` gets one)"
    return f"{num_models} models on demand" if num_models != 1 else "1 model on demand"


def _import_http() -> Callable[[ModelManager, ServerConfig, Lifecycle], QuietServer]:
    from corral.server.app import build_app
    from corral.server.connections import allow_open_files
    from corral.server.http_server import make_server

    def make(manager: ModelManager, config: ServerConfig, lifecycle: Lifecycle) -> QuietServer:
        allow_open_files(config)
        return make_server(build_app(manager, config, lifecycle), config)

    return make


async def _load(manager: ModelManager, serving: Serving) -> None:
    """Loads what is to be there first, side by side."""
    with _progress() as progress_of:
        await asyncio.gather(
            *(
                manager.load(local, pin=is_pinned, on_plan=_say, on_progress=progress_of(local.name))
                for models, is_pinned in ((serving.pinned, True), (serving.preloaded, False))
                for local in models
            )
        )


async def _first_of(work: asyncio.Future[Any], event: Coroutine[Any, Any, Any]) -> bool:
    """Waits for either; whether `work` has ended."""
    waiting = asyncio.ensure_future(event)
    await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return work.done()


async def _run_until_drained(
    running: asyncio.Future[None], lifecycle: Lifecycle, delay_s: float, timeout_s: float
) -> bool:
    """Waits for a signal, and then for the answers in flight; whether all of them have come to their end."""
    if await _first_of(running, lifecycle.stopping.wait()):
        running.result()
        return False
    if lifecycle.is_hurried:
        delay_s = 0.0
    if delay_s or lifecycle.num_in_flight:
        answers = "1 answer" if lifecycle.num_in_flight == 1 else f"{lifecycle.num_in_flight} answers"
        others = f", takes others for {delay_s:g} s," if delay_s else ""
        _say(f"Corral finishes {answers}{others} and stops; another Ctrl-C stops it at once")
    await lifecycle.take_leave(delay_s)
    return await lifecycle.drain(timeout_s)


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
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
