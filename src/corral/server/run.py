"""`corral serve`: from a model file to a running server, and its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uvloop import new_event_loop

from corral.config import EngineConfig, ServerConfig
from corral.server.lifecycle import Lifecycle
from corral.server.listen import bind, url_of
from corral.server.model_manager import ModelManager, ModelSpec
from corral.worker.client import OnProgress

if TYPE_CHECKING:
    from corral.server.http_server import QuietServer

EXIT_DRAIN_CUT = 1
EXIT_INTERRUPTED = 130  # a signal came before the model was loaded


def serve(model_path: Path, model_name: str, engine: EngineConfig, server: ServerConfig) -> int:
    """Serves one model until a signal; returns the process's exit code.

    SIGTERM or SIGINT lets the answers in flight finish; a second one ends them.

    Raises:
        CorralError: nothing could be served: a host or port that cannot be had, a host that needs a key, or whatever
            refused the model.
    """
    sockets = bind(server)
    try:
        spec = ModelSpec(model_name, model_path, engine)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_serve(spec, server, sockets))
    finally:
        for sock in sockets:
            sock.close()


async def _serve(spec: ModelSpec, config: ServerConfig, sockets: list[socket.socket]) -> int:
    lifecycle = Lifecycle()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lifecycle.stop)
    manager = ModelManager()
    try:
        # What HTTP needs takes a while to import; the worker loads the model meanwhile.
        make_server = asyncio.ensure_future(asyncio.to_thread(_import_http))
        if not await _load(manager, spec, lifecycle):
            return EXIT_INTERRUPTED
        server = (await make_server)(manager, config, lifecycle)
        serving = asyncio.ensure_future(server.serve(sockets=sockets))
        await _first_of(serving, server.is_listening.wait())
        urls = ", ".join(url_of(sock) for sock in sockets)
        _say(f"Corral serves {spec.name} at {urls} (OpenAI's API under /v1; Ctrl-C stops it)")
        return await _run_until_stopped(server, serving, lifecycle, config)
    finally:
        await manager.close()


def _import_http() -> Callable[[ModelManager, ServerConfig, Lifecycle], QuietServer]:
    from corral.server.app import build_app
    from corral.server.http_server import make_server

    return lambda manager, config, lifecycle: make_server(build_app(manager, config, lifecycle))


async def _load(manager: ModelManager, spec: ModelSpec, lifecycle: Lifecycle) -> bool:
    """Loads the model; False when a signal came first."""
    with _progress(spec.name) as on_progress:
        loading = asyncio.ensure_future(manager.load(spec, on_plan=_say, on_progress=on_progress))
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
        _say(f"Corral finishes {lifecycle.num_in_flight} answers and stops; another Ctrl-C stops it at once")
    is_drained = await lifecycle.drain(config.drain_timeout_s)
    server.should_exit = True
    server.force_exit = not is_drained
    await serving
    return 0 if is_drained else EXIT_DRAIN_CUT


@contextlib.contextmanager
def _progress(name: str) -> Iterator[OnProgress | None]:
    """A bar on a terminal; nothing where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("loading {task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
