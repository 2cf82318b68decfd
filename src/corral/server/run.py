"""`corral serve`: from model files to a running server, and its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uvloop import new_event_loop

from corral.config import EngineConfig, ServerConfig
from corral.server.first_load import load_first
from corral.server.lifecycle import Lifecycle
from corral.server.listen import bind, drain_delay_s, own_unix_path, url_of
from corral.server.logs.output import log_to_stderr
from corral.server.model_manager import ModelManager
from corral.server.model_names import ModelNames
from corral.server.origins import origin_pattern
from corral.server.service_manager import feed_watchdog, notify, notify_reloading
from corral.server.tracing.setup import check_tracing
from corral.server.unix_socket import owned_path
from corral.store.local_model import LocalModel

if TYPE_CHECKING:
    from corral.server.http_server import QuietServer
    from corral.server.live_settings import SettingsSource
    from corral.server.reload import Reload
    from corral.server.tls import Certificates

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


def serve(serving: Serving, engine: EngineConfig, server: ServerConfig, source: SettingsSource | None = None) -> int:
    """Serves models until a signal; returns the process's exit code.

    SIGTERM or SIGINT lets the answers in flight finish; a second one ends them. After SIGTERM probes say 503 at once,
    and requests are taken for a while longer, until those who send them have noticed. SIGHUP reads keys, certificates,
    and settings from `source` again.

    Raises:
        CorralError: nothing could be served: a host or port that cannot be had, a host that needs a key, certificates
            that cannot be used, or whatever refused a model that was to be loaded first.
    """
    # What cannot be is told before a model is loaded.
    origin_pattern(server.origins)
    check_tracing(server)
    certificates = _certificates(server)
    sockets = bind(server)
    try:
        with (
            log_to_stderr(server),
            owned_path(own_unix_path(server, sockets)),
            asyncio.Runner(loop_factory=new_event_loop) as runner,
        ):
            return runner.run(_serve(serving, engine, server, sockets, source, certificates))
    finally:
        for sock in sockets:
            sock.close()


def _certificates(config: ServerConfig) -> Certificates | None:
    if not any((config.ssl_certfile, config.ssl_keyfile, config.ssl_ca_certs, config.ssl_cert_reqs)):
        return None
    from corral.server.tls import read_certificates

    return read_certificates(config)


async def _serve(
    serving: Serving,
    engine: EngineConfig,
    config: ServerConfig,
    sockets: list[socket.socket],
    source: SettingsSource | None,
    certificates: Certificates | None,
) -> int:
    lifecycle = Lifecycle(is_loading=True)
    hangup = _watch_signals(lifecycle)
    manager = ModelManager(serving.names, engine, config, say=_say)
    # What HTTP needs takes a while to import; the workers load their models meanwhile.
    loading = asyncio.ensure_future(load_first(manager, serving.pinned, serving.preloaded, _say))
    try:
        make = await asyncio.to_thread(_import_http, config.database_url)
        server, reload = make(manager, config, lifecycle, sockets, source, certificates)
        async with (
            _listening(server, sockets) as running,
            _beside(feed_watchdog(), reload.watch(), _reload_on(hangup, reload)),
        ):
            # From here on probes are told that models load, and requests wait for them.
            if not await _is_loaded(loading, manager, lifecycle):
                return EXIT_INTERRUPTED
            lifecycle.is_loading = False
            scheme = "http" if certificates is None else "https"
            urls = ", ".join(url_of(sock, scheme) for sock in sockets)
            apis = "OpenAI's API under /v1, Ollama's under /api"
            served = f"Corral serves {await describe(serving)} at {urls}"
            _say(f"{served} ({apis}; Ctrl-C stops it)")
            notify("READY=1", f"STATUS={served}")
            is_drained = await _run_until_drained(running, lifecycle, reload, sockets)
            server.force_exit = not is_drained
            return 0 if is_drained else EXIT_DRAIN_CUT
    finally:
        loading.cancel()
        await manager.close()


def _watch_signals(lifecycle: Lifecycle) -> asyncio.Event:
    """Lets signals stop the server; the event is set when settings are to be read again."""
    loop, hangup = asyncio.get_running_loop(), asyncio.Event()
    has_terminal = sys.stderr.isatty()

    def hang_up() -> None:
        if has_terminal and not sys.stderr.isatty():
            lifecycle.stop(is_hurried=True)  # its window was closed
        else:
            hangup.set()

    loop.add_signal_handler(signal.SIGTERM, lifecycle.stop)
    loop.add_signal_handler(signal.SIGINT, lambda: lifecycle.stop(is_hurried=True))
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    return hangup


async def _reload_on(hangup: asyncio.Event, reload: Reload) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        notify_reloading()
        await reload.reload()
        notify("READY=1")


@contextlib.asynccontextmanager
async def _beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs these while the block does."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


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


def _import_http(database_url: str | None) -> Callable[..., tuple[QuietServer, Reload]]:
    from corral.server.app import build_app
    from corral.server.connections import allow_open_files
    from corral.server.database import Database
    from corral.server.http_server import make_server
    from corral.server.reload import Reload

    Database(database_url).warm_up()  # keys are read before the first request is

    def make(
        manager: ModelManager,
        config: ServerConfig,
        lifecycle: Lifecycle,
        sockets: list[socket.socket],
        source: SettingsSource | None,
        certificates: Certificates | None,
    ) -> tuple[QuietServer, Reload]:
        allow_open_files(config)
        app = build_app(manager, config, lifecycle)
        server = make_server(app, config, certificates.context if certificates is not None else None)
        app.state.num_connections = server.num_connections
        return server, Reload(app, server, manager, sockets, source, certificates, _say)

    return make


async def _first_of(work: asyncio.Future[Any], event: Coroutine[Any, Any, Any]) -> bool:
    """Waits for either; whether `work` has ended."""
    waiting = asyncio.ensure_future(event)
    await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return work.done()


async def _run_until_drained(
    running: asyncio.Future[None], lifecycle: Lifecycle, reload: Reload, sockets: list[socket.socket]
) -> bool:
    """Waits for a signal, and then for the answers in flight; whether all of them have come to their end."""
    if await _first_of(running, lifecycle.stopping.wait()):
        running.result()
        return False
    config = reload.config
    delay_s = 0.0 if lifecycle.is_hurried else drain_delay_s(config, sockets)
    answers = "1 answer" if lifecycle.num_in_flight == 1 else f"{lifecycle.num_in_flight} answers"
    notify("STOPPING=1", f"STATUS=finishes {answers}")
    if delay_s or lifecycle.num_in_flight:
        others = f", takes others for {delay_s:g} s," if delay_s else ""
        _say(f"Corral finishes {answers}{others} and stops; another Ctrl-C stops it at once")
    await lifecycle.take_leave(delay_s)
    return await lifecycle.drain(config.drain_timeout_s)


def _say(text: str) -> None:
    logger.info("%s", text)
