"""What Prometheus scrapes, and what routers ask to spread their load."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from corral.server.lifecycle import Lifecycle
from corral.server.metrics.books import Books
from corral.server.metrics.state import ServerState
from corral.server.model_manager import ModelManager
from corral.server.routes.json_answer import json_response

LOOK_TIMEOUT_S = 1.0  # for the workers to tell their figures; the last known ones are told then
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text"
FRESH_S = 0.5  # within which several who scrape share one look

logger = logging.getLogger("corral.server")


class _Looks:
    """Brings the models' figures up to date, for several who ask at once."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager
        self._at = float("-inf")  # the end of the last one
        self._running: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """A worker that is stuck holds up nobody: the look goes on beside, and is not begun twice."""
        if self._running is None:
            if time.monotonic() - self._at < FRESH_S:
                return
            self._running = asyncio.create_task(self._refresh())
        await asyncio.wait({self._running}, timeout=LOOK_TIMEOUT_S)

    async def _refresh(self) -> None:
        try:
            await self._manager.refresh()
        except Exception as error:  # the last known figures are told, with their age
            logger.exception("the models' figures could not be brought up to date: %s", error)
        finally:
            self._running, self._at = None, time.monotonic()


def metrics_routes(
    manager: ModelManager, lifecycle: Lifecycle, books: Books, num_connections: Callable[[], int]
) -> list[Route]:
    """/metrics as Prometheus has it, /load as vLLM has it."""
    looks = _Looks(manager)

    def state() -> ServerState:
        return ServerState(
            manager.running(),
            manager.num_pending,
            lifecycle.num_in_flight,
            num_connections(),
            manager.engine.adapter_max_bytes,
            lifecycle.is_draining,
            lifecycle.is_loading,
        )

    async def metrics(request: HTTPRequest) -> Response:
        await looks.look()
        is_open = _wants_open_metrics(request.headers.get("accept", ""))
        # The library takes a while to import, and the text to be made, so others are answered meanwhile.
        text = await asyncio.to_thread(_encode, books, state(), is_open=is_open)
        media_type = f"{OPEN_METRICS}; version=1.0.0; charset=utf-8" if is_open else TEXT
        return Response(text, headers={"Content-Type": media_type})

    async def load(_: HTTPRequest) -> Response:
        num_served = sum(model.num_leases for model in manager.running())
        return json_response({"server_load": num_served + manager.num_pending})

    return [Route("/metrics", metrics), Route("/load", load)]


def _wants_open_metrics(accept: str) -> bool:
    """As Prometheus' own library decides it: whoever names the format wants it."""
    return any(offer.partition(";")[0].strip().lower() == OPEN_METRICS for offer in accept.split(","))


def _encode(books: Books, state: ServerState, *, is_open: bool) -> bytes:
    from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
    from prometheus_client.openmetrics import exposition

    from corral.server.metrics.collector import ServerCollector

    registry = CollectorRegistry(auto_describe=False)  # a process may have several servers, as tests do
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(ServerCollector(books, state))
    if is_open:  # all names are legal there; any other escaping takes the colons out of vLLM's
        text: bytes = exposition.generate_latest(registry, escaping=exposition.ALLOWUTF8)  # type: ignore[no-untyped-call]
        return text
    return generate_latest(registry)
